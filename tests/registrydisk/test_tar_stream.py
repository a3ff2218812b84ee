"""Walking through archives: what everybody writes, and what nobody should."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError, ImagekitError, VerificationError
from registrydisk.tar_header import END_OF_ARCHIVE, EntryKind, TarHeader, format_header, padding
from registrydisk.tar_stream import TarStream
from tests.support.memory_store import tar_archive, tar_file


class _Dribble:
    """A stream that gives few bytes at a time, as sockets may."""

    def __init__(self, content: bytes, most_bytes: int) -> None:
        self._content = io.BytesIO(content)
        self._most_bytes = most_bytes

    def read(self, size_bytes: int, /) -> bytes:
        return self._content.read(min(size_bytes, self._most_bytes))


def _walk(archive: bytes, most_bytes: int = 1 << 20) -> dict[str, bytes]:
    stream = TarStream(_Dribble(archive, most_bytes), what="layer x")
    found: dict[str, bytes] = {}
    for entry in stream.entries():
        content = b""
        while chunk := stream.read(1000):
            content += chunk
        found[entry.path] = content
    return found


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("most_bytes", [1, 7, 512, 1 << 20])
def test_every_form_of_archive_is_read(form: int, most_bytes: int) -> None:
    long_name = "deep/" * 30 + "disk.img" if form != tarfile.USTAR_FORMAT else "deep/" * 20 + "disk.img"
    archive = tar_archive(tar_file("./disk/a", b"a" * 513), tar_file(long_name, b"b" * 512), tar_file("/c", b""), form=form)
    assert _walk(archive, most_bytes) == {"disk/a": b"a" * 513, long_name: b"b" * 512, "c": b""}


def test_content_that_is_not_read_is_skipped() -> None:
    archive = tar_archive(tar_file("a", b"x" * 5000), tar_file("b", b"y"))
    stream = TarStream(io.BytesIO(archive), what="layer x")
    assert [entry.path for entry in stream.entries()] == ["a", "b"]


def test_a_file_is_a_directory_only_where_posix_had_no_flag_for_it() -> None:
    block = bytearray(format_header(TarHeader(name="disk/", kind=EntryKind.FILE, size_bytes=0)))
    kinds = []
    for flag in (b"0", b"\x00"):
        block[156:157] = flag
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\x00 " % sum(block)
        kinds += [entry.header.kind for entry in TarStream(io.BytesIO(bytes(block)), what="layer x").entries()]
    assert kinds == [EntryKind.FILE, EntryKind.DIRECTORY]


def test_extended_attributes_and_sparse_records_are_told() -> None:
    archive = tar_archive(
        tar_file("disk/a", b"", pax_headers={"SCHILY.xattr.user.note": "1", "GNU.sparse.major": "1"}),
    )
    (entry,) = TarStream(io.BytesIO(archive), what="layer x").entries()
    assert entry.attributes == ("user.note",)
    assert entry.is_sparse


def test_names_are_escaped_for_readers() -> None:
    archive = tar_archive(tar_file("disk/\x1b[2J"), tar_file("disk/\udcff"), tar_file("disk/ü"))
    paths = [entry.path for entry in TarStream(io.BytesIO(archive), what="layer x").entries()]
    assert paths == ["disk/\\x1b[2J", "disk/\\udcff", "disk/ü"]


def _pax(records: bytes, kind: EntryKind = EntryKind.PAX) -> bytes:
    header = format_header(TarHeader(name="PaxHeaders", kind=kind, size_bytes=len(records)))
    return header + records + padding(len(records))


def _long_name(name: bytes) -> bytes:
    header = format_header(TarHeader(name="././@LongLink", kind=EntryKind.GNU_LONG_NAME, size_bytes=len(name)))
    return header + name + padding(len(name))


_FILE = format_header(TarHeader(name="disk/x", kind=EntryKind.FILE, size_bytes=0))
_NAMED = _pax(b"13 path=disk\n")


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(tar_archive(tar_file("disk/../../etc/passwd")), id="leads out"),
        pytest.param(tar_archive(tar_file("disk/x", pax_headers={"path": "../x"})), id="pax path leads out"),
        pytest.param(_pax(b"9 path=a\x00\n") + _FILE, id="NUL in a pax path"),
        pytest.param(_pax(b"99999999999999999999 path=a\n") + _FILE, id="pax length beyond 64 bits"),
        pytest.param(_pax(b"0 path=a\n") + _FILE, id="pax length 0"),
        pytest.param(_pax(b"3 \n") + _FILE, id="pax record without key"),
        pytest.param(_pax(b"pathaaaaaaaaaaaaaaaaaaaaaaaaaa") + _FILE, id="pax record without length"),
        pytest.param(_pax(b"10 size=-1\n") + _FILE, id="negative pax size"),
        pytest.param(_pax(b"28 size=9999999999999999999\n") + _FILE, id="huge pax size"),
        pytest.param(_pax(b"11 size=99\n", EntryKind.PAX_GLOBAL) + _FILE, id="global size"),
        pytest.param(_pax(b"10 path=x\n", EntryKind.PAX_GLOBAL) + _FILE, id="global path"),
        pytest.param(format_header(TarHeader(name="x", kind=EntryKind.PAX, size_bytes=2 << 20)), id="large pax header"),
        pytest.param(format_header(TarHeader(name="x", kind=EntryKind.GNU_LONG_NAME, size_bytes=1 << 20)), id="large long name"),
        pytest.param(_NAMED + _pax(b"11 mtime=1\n") + _FILE, id="two pax headers"),
        pytest.param(_NAMED + _long_name(b"etc/x") + _FILE, id="a long name over a pax path"),
        pytest.param(_long_name(b"etc/x") + _NAMED + _FILE, id="a pax path over a long name"),
        pytest.param(_long_name(b"etc/x") + _long_name(b"disk/y") + _FILE, id="two long names"),
        pytest.param(b"\x01" * 512, id="no header"),
    ],
)
def test_evil_archives_are_refused(archive: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        _walk(archive + END_OF_ARCHIVE)
    assert caught.value.reason == "UnsafeImage"


def test_empty_pax_records_leave_what_the_header_says() -> None:
    assert _walk(_pax(b"8 path=\n8 size=\n") + _FILE + END_OF_ARCHIVE) == {"disk/x": b""}


@pytest.mark.parametrize("kept_bytes", [100, 512 + 100, 512 + 600])
def test_an_archive_that_ends_early_is_refused(kept_bytes: int) -> None:
    with pytest.raises(VerificationError) as caught:
        _walk(tar_archive(tar_file("disk/x", b"x" * 2000))[:kept_bytes])
    assert caught.value.reason == "TruncatedStream"


def test_a_missing_end_mark_is_accepted() -> None:
    assert _walk(_FILE) == {"disk/x": b""}


def test_many_pax_records_take_linear_time() -> None:
    """A quadratic reader would copy 30 GiB here."""
    records = b"8 a=bcd\n" * ((1 << 20) // 8)
    assert _walk(_pax(records) + _FILE) == {"disk/x": b""}


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 4095), byte=st.integers(0, 255), kept_bytes=st.integers(0, 4096))
def test_damaged_archives_end_in_a_named_error_or_well(position: int, byte: int, kept_bytes: int) -> None:
    damaged = bytearray(tar_archive(tar_file("disk/" + "long" * 40, b"x" * 700), tar_file("disk/b", b"y")))
    damaged[position % len(damaged)] = byte
    reason = "TruncatedStream"
    try:
        _walk(bytes(damaged[:kept_bytes]))
    except ImagekitError as error:
        reason = error.reason
    assert reason in ("UnsafeImage", "TruncatedStream")
