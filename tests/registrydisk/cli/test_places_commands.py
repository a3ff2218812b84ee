"""The commands that move, show, tag, list and delete images, as a user runs them against a real registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagekit.base.errors import NotFoundError, UsageError
from imagekit.base.progress import SilentProgress
from registrydisk.cli.main import group
from registrydisk.layout import LayoutTarget, open_layout_source
from registrydisk.manifest import parse_index, parse_manifest
from registrydisk.transfer import copy_image
from tests.registrydisk.samples import MemoryImage
from tests.support.services import RunningRegistry


def run(*arguments: str) -> Result:
    return CliRunner().invoke(group, arguments, catch_exceptions=True)


def done(*arguments: str) -> str:
    ended = run(*arguments)
    assert ended.exit_code == 0, (ended.output, ended.exception)
    return ended.stdout


def failure(*arguments: str) -> BaseException:
    ended = run(*arguments)
    assert ended.exception is not None
    assert not ended.stdout
    return ended.exception


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, MemoryImage]:
    """A layout with an index under the tag 1; its parent is the working directory."""
    monkeypatch.chdir(tmp_path)
    image = MemoryImage()
    image.add_index("linux/amd64", "linux/arm64")
    copy_image(image, LayoutTarget(tmp_path / "layout", tag="1"), platform=None, progress=SilentProgress())
    return "oci:layout:1", image


@pytest.mark.process
@pytest.mark.network
def test_push_list_tag_pull_delete(registry: RunningRegistry, layout: tuple[str, MemoryImage], tmp_path: Path) -> None:
    source, image = layout
    name = f"{registry.host}/cli/disk"
    assert done("push", source, f"{name}:1", "--plain-http").splitlines()[-1] == f"{name}:1@{image.top}"
    assert done("tag", f"{name}:1", "stable", "--plain-http") == f"{name}:stable@{image.top}\n"
    assert done("list", name, "--plain-http") == "1\nstable\n"
    assert json.loads(done("list", name, "--plain-http", "-o", "json")) == {
        "schemaVersion": 1,
        "repository": name,
        "tags": ["1", "stable"],
    }
    assert done("pull", f"{name}:stable", "--plain-http", "--all") == f"oci:disk:stable@{image.top}\n"
    assert open_layout_source(tmp_path / "disk", tag="stable").read_manifest() == image.read_manifest()
    arm = parse_index(image.read_manifest()).manifests[1].digest
    assert done("pull", f"{name}:1", "oci:arm:1", "--plain-http", "--platform", "arm64") == f"oci:arm:1@{arm}\n"
    assert isinstance(failure("delete", f"{name}:1", "--plain-http"), UsageError)
    assert done("delete", f"{name}:1", "--plain-http", "--yes") == f"{name}:1@{image.top}\n"
    assert isinstance(failure("pull", f"{name}:stable", "--plain-http"), NotFoundError)


@pytest.mark.process
@pytest.mark.network
def test_inspect_in_a_registry(registry: RunningRegistry, layout: tuple[str, MemoryImage]) -> None:
    source, image = layout
    name = f"{registry.host}/cli/shown:1"
    done("copy", source, f"docker://{name}", "--plain-http", "--progress", "none")
    document = json.loads(done("inspect", name, "--plain-http", "-o", "json", "--platform", "arm64", "--progress", "none"))
    assert document["name"] == f"docker://{name}"
    assert document["topDigest"] == str(image.top)
    assert document["platforms"] == ["linux/amd64", "linux/arm64"]
    assert document["disk"]["knownFrom"] == "layer"
    assert document["disk"]["virtualSizeBytes"] == len("linux/arm64")


def test_copy_between_files(layout: tuple[str, MemoryImage], tmp_path: Path) -> None:
    source, image = layout
    document = json.loads(done("copy", source, "oci-archive:x.tar:2", "-o", "json", "--progress", "none"))
    assert document["digest"] == str(image.top)
    assert document["pinned"] == f"oci-archive:x.tar:2@{image.top}"
    assert done("copy", "oci-archive:x.tar:2", "docker-archive:y.tar:me/x:1", "--platform", "arm64").startswith(
        "docker-archive:y.tar:me/x:1@sha256:"
    )
    assert isinstance(failure("copy", source, "docker-archive:z.tar", "--all"), UsageError)
    assert not (tmp_path / "z.tar").exists()


def test_inspect_prints_documents_as_they_are(layout: tuple[str, MemoryImage]) -> None:
    source, image = layout
    assert done("inspect", source, "--raw").encode() == image.read_manifest().content
    arm = image.manifests[parse_index(image.read_manifest()).manifests[1].digest]
    assert done("inspect", source, "--raw", "--platform", "arm64").encode() == arm.content
    config = image.blobs[parse_manifest(arm).config.digest]
    assert done("inspect", source, "--config", "--platform", "arm64").encode() == config
    text = done("inspect", source, "--platform", "arm64", "--progress", "none")
    assert "linux/arm64 (of linux/amd64, linux/arm64)" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("push", "layout", "quay.io/x:1"),
        ("push", "oci:layout:1", "oci:other"),
        ("pull", "oci:layout:1"),
        ("tag", "quay.io/x:1", "other/y:2"),
        ("tag", "quay.io/x:1", ""),
        ("list", "oci:layout"),
        ("delete", "oci:layout:1", "--yes"),
        ("copy", "oci:layout:1", "oci:"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told_before_anything_happens(layout: tuple[str, MemoryImage], arguments: tuple[str, ...]) -> None:
    assert layout
    assert isinstance(failure(*arguments), UsageError)
