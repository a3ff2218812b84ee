"""Tar headers against Python's own tarfile, and against nonsense."""

from __future__ import annotations

import io
import tarfile
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError, UsageError
from registrydisk.tar_header import END_OF_ARCHIVE, EntryKind, TarHeader, format_header, parse_header

_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00/"), min_size=1, max_size=120).map(
    lambda name: f"disk/{name}"
)


@settings(max_examples=60, deadline=None)
@given(name=_NAMES, size_bytes=st.integers(0, 2**50), seconds=st.integers(0, 2**33 - 1))
def test_python_reads_what_we_write(name: str, size_bytes: int, seconds: int) -> None:
    written = format_header(
        TarHeader(name=name, kind=EntryKind.FILE, size_bytes=size_bytes, mode=0o444, uid=107, gid=107, modified_seconds=seconds)
    )
    assert len(written) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(written + END_OF_ARCHIVE), mode="r|") as archive:
        member = archive.next()
    assert member is not None
    assert (member.name, member.size, member.mode, member.uid, member.mtime) == (name, size_bytes, 0o444, 107, seconds)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_we_read_what_python_writes(form: Literal[0, 1]) -> None:
    member = tarfile.TarInfo("some/directory/" + "x" * 80)
    member.size, member.mode, member.uid, member.gid, member.mtime = 4096, 0o640, 107, 36, 1700000000
    member.uname, member.gname = "qemu", "kvm"
    header = parse_header(member.tobuf(form), what="a layer")
    assert header == TarHeader(
        name=member.name,
        kind=EntryKind.FILE,
        size_bytes=4096,
        mode=0o640,
        uid=107,
        gid=36,
        user="qemu",
        group="kvm",
        modified_seconds=1700000000,
    )


def test_sizes_beyond_octal_are_read_in_base_256() -> None:
    member = tarfile.TarInfo("disk/x")
    member.size = 2**40 + 5
    assert parse_header(member.tobuf(tarfile.GNU_FORMAT), what="a layer").size_bytes == 2**40 + 5


def test_times_before_1970_are_read() -> None:
    member = tarfile.TarInfo("disk/x")
    member.mtime = -5
    assert parse_header(member.tobuf(tarfile.GNU_FORMAT), what="a layer").modified_seconds == -5


def test_directories_and_links_have_no_content() -> None:
    member = tarfile.TarInfo("disk")
    member.type, member.size = tarfile.DIRTYPE, 512
    assert parse_header(member.tobuf(tarfile.USTAR_FORMAT), what="a layer").size_bytes == 0


def _with(block: bytes, start: int, content: bytes) -> bytes:
    changed = bytearray(block)
    changed[start : start + len(content)] = content
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\x00 " % sum(changed)
    return bytes(changed)


@pytest.mark.parametrize(
    ("start", "content"),
    [
        pytest.param(124, b"\xff" * 12, id="negative size"),
        pytest.param(124, b"\x80" + b"\xff" * 11, id="size beyond 63 bits"),
        pytest.param(124, b"12x45678901\x00", id="size not octal"),
        pytest.param(100, b"\xff" * 8, id="negative mode"),
        pytest.param(156, b"S", id="GNU sparse"),
        pytest.param(156, b"Z", id="unknown kind"),
    ],
)
def test_nonsense_is_refused(start: int, content: bytes) -> None:
    block = _with(format_header(TarHeader(name="disk/x", kind=EntryKind.FILE)), start, content)
    with pytest.raises(ImageError) as caught:
        parse_header(block, what="layer x")
    assert caught.value.reason == "UnsafeImage"


def test_a_changed_byte_breaks_the_checksum() -> None:
    block = bytearray(format_header(TarHeader(name="disk/x", kind=EntryKind.FILE)))
    block[0] ^= 1
    with pytest.raises(ImageError, match="checksum"):
        parse_header(bytes(block), what="layer x")


@pytest.mark.parametrize("name", ["", "a\x00b"])
def test_names_that_cannot_be_written_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        format_header(TarHeader(name=name, kind=EntryKind.FILE))


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=512, max_size=512))
def test_random_blocks_never_crash(block: bytes) -> None:
    with pytest.raises(ImageError):
        parse_header(b"\x01" + block[1:], what="noise")
