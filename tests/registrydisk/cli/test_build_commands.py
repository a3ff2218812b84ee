"""build, extract, lint and index as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagekit.base.errors import ImagekitError, UsageError
from registrydisk.cli.main import group
from registrydisk.digest import Digest
from tests.support.images import qcow2_image, with_backing_file
from tests.support.services import RunningRegistry


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(group, arguments, env={"SOURCE_DATE_EPOCH": "", **environment})


def done(*arguments: str, **environment: str) -> str:
    ended = run(*arguments, **environment)
    assert ended.exit_code == 0, (ended.output, ended.exception)
    return ended.stdout


def failure(*arguments: str) -> ImagekitError:
    ended = run(*arguments)
    assert isinstance(ended.exception, ImagekitError), ended.output
    assert not ended.stdout
    return ended.exception


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fedora.qcow2"
    path.write_bytes(qcow2_image())
    return path


def test_the_last_line_is_the_pinned_name(tmp_path: Path) -> None:
    printed = done("build", "fedora.qcow2", "-t", "oci:layout:42", "--digest-file", "digest", "--platform", "linux/arm64")
    digest = (tmp_path / "digest").read_text().strip()
    assert printed.splitlines()[-1] == f"oci:layout:42@{digest}"


def test_json_tells_digests_sizes_and_time(disk: Path) -> None:
    printed = json.loads(done("build", "fedora.qcow2", "-t", "oci:layout:42", "-o", "json", "--progress", "none"))
    (image,) = printed["images"]
    assert printed["schemaVersion"] == 1
    assert printed["digest"] == image["digest"]
    assert image["payloadDigest"] == str(Digest.of(disk.read_bytes()))
    assert image["payloadBytes"] == disk.stat().st_size
    assert {"diffId", "layerDigest", "sizeBytes", "compression", "seconds", "virtualSizeBytes", "platform"} <= set(image)


def test_what_is_built_is_extracted_and_linted(disk: Path) -> None:
    done("build", "fedora.qcow2", "-t", "oci:layout:42", "--instancetype", "u1.small", "--preference", "fedora")
    assert done("extract", "oci:layout:42", "out.qcow2").strip() == f"out.qcow2  {Digest.of(disk.read_bytes())}"
    assert Path("out.qcow2").read_bytes() == disk.read_bytes()
    assert isinstance(failure("extract", "oci:layout:42", "out.qcow2"), UsageError)
    done("extract", "oci:layout:42", "out.qcow2", "--force")
    assert done("lint", "oci:layout:42", "--strict").endswith("nothing to say\n")


def test_lint_ends_with_the_code_of_a_failed_check() -> None:
    done("build", "fedora.qcow2", "-t", "oci:layout:1", "--label", "shasum=" + "0" * 64)
    ended = CliRunner().invoke(group, ["lint", "oci:layout:1", "-o", "json"], standalone_mode=False)
    assert ended.return_value == 5
    (report,) = json.loads(ended.stdout)["images"]
    assert "ChecksumMismatch" in {finding["reason"] for finding in report["findings"]}


def test_the_time_is_the_options_then_the_environments_then_zero() -> None:
    def digest(*options: str, **environment: str) -> str:
        return str(done("build", "fedora.qcow2", "-t", "oci:layout:1", *options, **environment)).rpartition("@")[2]

    plain = digest()
    assert digest(SOURCE_DATE_EPOCH="0", TZ="Asia/Tokyo", LC_ALL="C") == plain
    assert digest("--created", "1700000000") == digest(SOURCE_DATE_EPOCH="1700000000") != plain
    assert digest("--created", "0", SOURCE_DATE_EPOCH="1700000000") == plain
    assert digest("--created", "now") != plain


def test_a_dockerfile_is_built_without_a_daemon(disk: Path, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    disk.rename(context / "fedora.qcow2")
    (context / "Dockerfile").write_text("FROM kubevirt/registry-disk-v1alpha\nCOPY *.qcow2 /disk/\n")
    done("build", "-f", "context/Dockerfile", "context", "-t", "oci:layout:1")
    done("extract", "oci:layout:1", "out.qcow2")
    assert Path("out.qcow2").read_bytes() == (context / "fedora.qcow2").read_bytes()


def test_platforms_make_an_index() -> None:
    printed = done(
        *("build", "-t", "oci:layout:1", "--platform", "linux/arm64=fedora.qcow2", "--platform", "linux/amd64=fedora.qcow2")
    )
    shown = done("index", "show", "oci:layout:1")
    assert [line.split()[0] for line in shown.splitlines()] == ["linux/amd64", "linux/arm64"]
    done("build", "fedora.qcow2", "-t", "oci:a:1", "--platform", "linux/amd64")
    done("build", "fedora.qcow2", "-t", "oci:b:1", "--platform", "linux/arm64")
    joined = done("index", "create", "oci:joined:1", "oci:b:1", "oci:a:1")
    assert joined.rpartition("@")[2] == printed.rpartition("@")[2], "joined or built at once, it is the same index"
    done("extract", "oci:joined:1", "out.qcow2", "--platform", "linux/arm64")
    assert isinstance(failure("index", "create", "oci:twice:1", "oci:a:1", "oci:a:1"), UsageError)
    assert isinstance(failure("index", "create", "oci:nested:1", "oci:joined:1"), UsageError)


@pytest.mark.process
@pytest.mark.network
def test_an_index_is_built_and_joined_in_a_registry(registry: RunningRegistry) -> None:
    name = f"{registry.host}/build/cli"
    for architecture in ("amd64", "arm64"):
        done("build", "fedora.qcow2", "-t", f"{name}:{architecture}", "--platform", f"linux/{architecture}", "--plain-http")
    printed = done("index", "create", f"{name}:1", f"{name}:amd64", f"{name}:arm64", "--plain-http")
    assert printed.startswith(f"{name}:1@sha256:")
    done("extract", f"{name}:1", "out.qcow2", "--platform", "linux/arm64", "--plain-http")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-t", "oci:layout:1"], "no disk is named"),
        (["fedora.qcow2", "-t", "oci:layout:1", "--created", "yesterday"], "not a time"),
        (["fedora.qcow2", "-t", "oci:layout:1", "--compression-level", "9"], "not a compression level"),
        (["fedora.qcow2", "-t", "oci:layout:1", "--label", "x"], "not KEY=VALUE"),
        (["fedora.qcow2", "-t", "Upper/Case"], "not an image reference"),
        ([".", "-f", "Dockerfile", "--engine", "docker", "-t", "quay.io/a/b:1"], "its own store only"),
        (["fedora.qcow2", "--engine", "docker", "-t", "docker-daemon:a:1"], "not a directory"),
    ],
)
def test_wrong_usage_is_told_and_makes_nothing(arguments: list[str], message: str, tmp_path: Path) -> None:
    error = failure("build", *arguments)
    assert error.exit_code == 2
    assert message in error.message
    assert not (tmp_path / "layout" / "index.json").exists()


def test_an_unsafe_disk_makes_no_image(disk: Path, tmp_path: Path) -> None:
    disk.write_bytes(with_backing_file(qcow2_image(), "/etc/passwd"))
    assert failure("build", "fedora.qcow2", "-t", "oci:layout:1").reason == "UnsafeImage"
    assert not (tmp_path / "layout" / "index.json").exists()
