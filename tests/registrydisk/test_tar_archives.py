"""Archives are read where they lie and written in one pass: what is hostile is refused, what is ours is deterministic."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError, ImagekitError, NotFoundError
from registrydisk.digest import Digest
from registrydisk.oci_archive import OciArchiveTarget
from registrydisk.tar_index import TarIndex, open_tar_index
from registrydisk.tar_writer import TarWriter


def archive_of(path: Path, *members: tarfile.TarInfo | tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                described = tarfile.TarInfo(member[0])
                described.size = len(member[1])
                archive.addfile(described, io.BytesIO(member[1]))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def content_of(index: TarIndex, name: str, *, offset_bytes: int = 0) -> bytes:
    with closing(index.open(name, offset_bytes=offset_bytes)) as reader:
        pieces = []
        while piece := reader.read(100):
            pieces.append(piece)
        return b"".join(pieces)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_at_any_place(tmp_path: Path, format: int) -> None:
    long_name = "a" * 90 + "/" + "b" * 90
    members = [("./index.json", b"{}"), ("empty", b""), (long_name, os.urandom(5000))]
    path = archive_of(tmp_path / "x.tar", *members, format=format)
    with closing(open_tar_index(path, where="it")) as index:
        for name, content in members:
            assert content_of(index, name) == content
            assert content_of(index, name, offset_bytes=300) == content[300:]
        with pytest.raises(NotFoundError):
            index.find("missing")


def test_links_lead_to_members(tmp_path: Path) -> None:
    path = archive_of(
        tmp_path / "x.tar",
        link("b/layer.tar", "../a/layer.tar"),
        ("a/layer.tar", b"layer"),
        link("c", "a/layer.tar", tarfile.LNKTYPE),
    )
    with closing(open_tar_index(path, where="it")) as index:
        assert content_of(index, "b/layer.tar") == content_of(index, "c") == b"layer"


@pytest.mark.parametrize("target", ["/etc/passwd", "../etc/passwd", "../../../../etc/passwd", "missing"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_lead_nowhere_else(tmp_path: Path, target: str, kind: bytes) -> None:
    path = archive_of(tmp_path / "x.tar", link("a/link", target, kind))
    with closing(open_tar_index(path, where="it")) as index, pytest.raises(NotFoundError):
        index.open("a/link")


def test_circles_of_links_end(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "x.tar", link("a", "b"), link("b", "a"))
    with closing(open_tar_index(path, where="it")) as index, pytest.raises(ImageError, match="chain of links"):
        index.open("a")


def two_of_one_name(path: Path) -> None:
    archive_of(path, ("x", b"1"), ("./x", b"2"))


def name_that_leads_out(path: Path) -> None:
    archive_of(path, ("../x", b"1"))


def cut(path: Path) -> None:
    archive_of(path, ("x", bytes(5000)))
    os.truncate(path, 2000)


def compressed(path: Path) -> None:
    archive_of(path, ("x", b"1"))
    path.write_bytes(gzip.compress(path.read_bytes()))


def not_tar(path: Path) -> None:
    path.write_bytes(b"x" * 1024)


@pytest.mark.parametrize("make", [two_of_one_name, name_that_leads_out, cut, compressed, not_tar])
def test_hostile_archives_are_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    before = set(os.listdir("/proc/self/fd"))
    make(tmp_path / "x.tar")
    with pytest.raises(ImagekitError):
        open_tar_index(tmp_path / "x.tar", where="it")
    assert set(os.listdir("/proc/self/fd")) == before


@given(data=st.data())
@settings(max_examples=40)
def test_damage_is_read_or_refused_in_our_words(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = archive_of(tmp_path_factory.mktemp("damage") / "x.tar", ("a", b"1" * 600), link("b", "a"), ("c" * 120, b"2"))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 4000))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        with closing(open_tar_index(path, where="it")) as index:
            content_of(index, "a")
    except ImagekitError:
        return


def written(path: Path, *members: tuple[str, bytes]) -> bytes:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        writer = TarWriter(descriptor)
        for name, content in members:
            writer.begin()
            for start in range(0, len(content), 300):
                writer.write(content[start : start + 300])
            writer.end(name)
        writer.finish()
    finally:
        os.close(descriptor)
    return path.read_bytes()


def test_written_archives_are_read_by_others_and_always_equal(tmp_path: Path) -> None:
    members = [("blobs/sha256/" + "a" * 64, os.urandom(1000)), ("empty", b""), ("x", b"x" * 512)]
    content = written(tmp_path / "1.tar", *members)
    assert content == written(tmp_path / "2.tar", *members)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        found = {member.name: (archive.extractfile(member), member) for member in archive}
        for name, expected in members:
            file, member = found[name]
            assert file is not None
            assert file.read() == expected
            assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)


def test_dropped_members_leave_no_trace(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "1.tar", os.O_RDWR | os.O_CREAT)
    writer = TarWriter(descriptor)
    writer.add("a", b"1")
    writer.begin()
    writer.write(b"x" * 3000)
    writer.drop()
    writer.drop()
    writer.add("b", b"2")
    writer.finish()
    os.close(descriptor)
    assert (tmp_path / "1.tar").read_bytes() == written(tmp_path / "2.tar", ("a", b"1"), ("b", b"2"))


def test_members_of_more_than_8_gib(tmp_path: Path) -> None:
    """The file is sparse: only the writer believes that so much was written."""
    size_bytes = 8 * 2**30 + 700
    descriptor = os.open(tmp_path / "x.tar", os.O_RDWR | os.O_CREAT)
    writer = TarWriter(descriptor)
    writer.begin()
    writer._end_bytes += size_bytes - 3
    writer.write(b"end")
    writer.end("large")
    writer.add("after", b"1")
    writer.finish()
    os.close(descriptor)
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert [(member.name, member.size) for member in archive] == [("large", size_bytes), ("after", 1)]
    with closing(open_tar_index(tmp_path / "x.tar", where="it")) as index:
        assert content_of(index, "large", offset_bytes=size_bytes - 5) == b"\0\0end"
        assert content_of(index, "after") == b"1"


def test_a_digest_without_room_in_the_archive_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with closing(OciArchiveTarget(tmp_path / "x.tar")) as target:
        writer = target.open_blob_writer()
        writer.write(b"blob")
        with pytest.raises(ImageError, match="cannot hold sha512"):
            writer.commit(Digest.of(b"blob", algorithm="sha512"))
        writer.abort()
    assert not list(tmp_path.iterdir())
