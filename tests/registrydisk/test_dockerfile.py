"""Dockerfiles of the one form that needs no daemon, and all the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImagekitError, NotFoundError, UsageError
from registrydisk.build import BuildRequest
from registrydisk.build_plan import plan_dockerfile
from registrydisk.dockerfile import DiskDockerfile, find_disk, parse_dockerfile, read_dockerfile
from registrydisk.manifest import Platform

_ARTICLE = "FROM kubevirt/registry-disk-v1alpha\nCOPY fedora.qcow2 /disk/\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(_ARTICLE, DiskDockerfile(source="fedora.qcow2"), id="the article's"),
        pytest.param("from scratch\nadd a.img /disk/\n", DiskDockerfile(source="a.img"), id="lower case"),
        pytest.param("FROM scratch\nCOPY a.img /disk/b.img", DiskDockerfile(source="a.img", disk_name="b.img"), id="renamed"),
        pytest.param('FROM scratch\nCOPY ["a b.img", "/disk/"]', DiskDockerfile(source="a b.img"), id="JSON form"),
        pytest.param("FROM scratch AS disk\nCOPY a.img disk/", DiskDockerfile(source="a.img"), id="stage name, relative target"),
        pytest.param(
            "FROM kubevirt/container-disk-v1alpha:v0.1\nCOPY a.img /disk",
            DiskDockerfile(source="a.img"),
            id="directory of the base",
        ),
        pytest.param(
            "FROM registry.local:5000/mirror/kubevirt/registry-disk-v1alpha@sha256:0\nCOPY a.img /disk/",
            DiskDockerfile(source="a.img"),
            id="any registry",
        ),
        pytest.param(
            "FROM scratch\nADD --chown=107:107 --chmod=0440 https://example.org/a.qcow2 /disk/",
            DiskDockerfile(source="https://example.org/a.qcow2"),
            id="URL",
        ),
        pytest.param(
            "FROM --platform=linux/arm64 scratch\nCOPY a.img /disk/",
            DiskDockerfile(source="a.img", platform=Platform(os="linux", architecture="arm64")),
            id="platform",
        ),
        pytest.param(
            "# syntax=docker/dockerfile:1\n\nFROM scratch\n# comment\nLABEL a=1 \\\n  # between\n  b=\"two words\" \\\n\n  c='3'\n"
            "ENV X 1 2\nENV Y=z\nLABEL price=\\$5\nCOPY a.img \\\n  /disk/",
            DiskDockerfile(
                source="a.img", labels={"a": "1", "b": "two words", "c": "3", "price": "$5"}, environment={"X": "1 2", "Y": "z"}
            ),
            id="comments, continuations, quotes",
        ),
    ],
)
def test_the_form_is_understood(text: str, expected: DiskDockerfile) -> None:
    assert parse_dockerfile(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "copies no disk"),
        ("FROM scratch\n", "copies no disk"),
        ("COPY a.img /disk/\n", "COPY before FROM"),
        ("ARG V=1\nFROM scratch\n", "ARG before FROM"),
        ("FROM fedora:42\nCOPY a.img /disk/\n", "line 1 .* base image 'fedora:42'"),
        ("FROM scratch\nRUN true\nCOPY a.img /disk/\n", "line 2 .* RUN is not supported"),
        ("FROM scratch\nCOPY a.img /disk/\nCOPY b.img /disk/\n", "line 3 .* one disk"),
        ("FROM scratch\nCOPY a.img b.img /disk/\n", "not exactly one file"),
        ("FROM scratch\nCOPY a.img /disk\n", "copies to '/disk'"),
        ("FROM scratch\nCOPY a.img /images/\n", "copies to '/images/'"),
        ("FROM scratch\nCOPY a.img /disk/../etc/x\n", "copies to"),
        ("FROM scratch\nCOPY a.img /disk/..\n", "copies to"),
        ("FROM scratch\nCOPY a.img /disk/b/\n", "copies to"),
        ("FROM scratch\nCOPY --from=other a.img /disk/\n", "flag '--from=other'"),
        ("FROM scratch\nCOPY https://example.org/a.img /disk/\n", "does not fetch"),
        ("FROM scratch\nADD disk.tar.gz /disk/\n", "would unpack"),
        ("FROM scratch\nCOPY $DISK /disk/\n", "variables"),
        ("FROM scratch\nLABEL a=${B}\nCOPY a.img /disk/\n", "variables"),
        ("FROM scratch\nCOPY <<EOF /disk/x\nEOF\n", "not exactly one file|is not supported"),
        ("FROM scratch\nLABEL a='1\nCOPY a.img /disk/\n", "cannot be read"),
        ("FROM scratch\nCOPY [1] /disk/\n", "cannot be read|not exactly"),
        ("FROM scratch\nENV 1A=b\nCOPY a.img /disk/\n", "environment variable"),
        ("FROM scratch\nFROM scratch\nCOPY a.img /disk/\n", "several stages"),
        ("# escape=`\nFROM scratch\nCOPY a.img /disk/\n", "escape character"),
        ("FROM --platform=nonsense/ scratch\nCOPY a.img /disk/\n", "platform"),
    ],
)
def test_other_forms_are_refused_by_line_and_name(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_dockerfile(text)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["FROM scratch", "COPY", "a.img", "/disk/", "[", '"', "'", "\\", "\n", " ", "LABEL", "=", "$", "--x"]),
        max_size=12,
    )
)
def test_any_text_is_understood_or_refused(parts: list[str]) -> None:
    try:
        parsed = parse_dockerfile(" ".join(parts))
    except ImagekitError as error:
        parsed = None
        message = error.message
    assert message if parsed is None else parsed.source


def test_a_missing_or_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_dockerfile(tmp_path / "Dockerfile")
    (tmp_path / "Dockerfile").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError):
        read_dockerfile(tmp_path / "Dockerfile")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "images").mkdir(parents=True)
    (root / "a.qcow2").write_bytes(b"a")
    (root / "images" / "b.img").write_bytes(b"b")
    (tmp_path / "secret.img").write_bytes(b"s")
    (root / "out.img").symlink_to(tmp_path / "secret.img")
    (root / "in.img").symlink_to("images/b.img")
    (root / "up").symlink_to(tmp_path)
    return root


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.qcow2", "a.qcow2"),
        ("/a.qcow2", "a.qcow2"),
        ("./*.qcow2", "a.qcow2"),
        ("images/?.img", "images/b.img"),
        ("in.img", "images/b.img"),
    ],
)
def test_the_disk_is_found_in_the_context(context: Path, source: str, expected: str) -> None:
    assert find_disk(context, source) == (context / expected).resolve()


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("none.img", NotFoundError),
        ("images", NotFoundError),
        (".", UsageError),
        ("../secret.img", UsageError),
        ("images/../../secret.img", UsageError),
        ("out.img", UsageError),
        ("up/secret.img", UsageError),
        ("*.img", UsageError),
        ("**/b.img", UsageError),
    ],
)
def test_nothing_outside_of_the_context_is_read(context: Path, source: str, error: type[ImagekitError]) -> None:
    with pytest.raises(error):
        find_disk(context, source)


def test_the_command_line_is_stronger_than_the_file(context: Path) -> None:
    dockerfile = context / "Dockerfile"
    dockerfile.write_text("FROM scratch\nLABEL a=file b=file\nENV E=file\nCOPY a.qcow2 /disk/x.qcow2\n")
    template = BuildRequest(disk="", labels={"a": "line"}, disk_name="y.qcow2")
    (request,) = plan_dockerfile(template, dockerfile=dockerfile, context=context, platforms=("linux/arm64",))
    assert (request.disk, request.disk_name) == (str((context / "a.qcow2").resolve()), "y.qcow2")
    assert (request.labels, request.environment) == ({"a": "line", "b": "file"}, {"E": "file"})
    assert str(request.platform) == "linux/arm64"


@pytest.mark.parametrize("platforms", [("amd64", "arm64"), ("amd64=a.qcow2",)])
def test_a_dockerfile_is_for_one_platform(context: Path, platforms: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        plan_dockerfile(BuildRequest(disk=""), dockerfile=context / "Dockerfile", context=context, platforms=platforms)
