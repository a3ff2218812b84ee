"""The disks that go into images: their blocks, their holes, their names, and those behind URLs."""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError, UsageError, VerificationError
from imagekit.base.progress import SilentProgress
from imagekit.image import DiskFormat
from registrydisk.access import RegistryAccess
from registrydisk.disk_blocks import file_blocks, file_samples, stream_blocks
from registrydisk.disk_source import DiskOptions, DiskSource, name_in_image, open_disk
from tests.registrydisk.remote_access import CANARY, patient
from tests.support.fault_server import Fault, FaultServer, fault_server, header, ignore_range, no_length, together
from tests.support.images import qcow2_image, with_backing_file

_BLOCK = 64 * 1024


@contextlib.contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 3)), max_size=4), size_bytes=st.integers(1, 44 * 4096))
def test_blocks_are_the_file(tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int]], size_bytes: int) -> None:
    path = tmp_path_factory.mktemp("sparse") / "disk"
    with path.open("wb") as file:
        for start, length in pieces:
            file.seek(start * 4096)
            file.write(b"\xaa" * (length * 4096))
        file.truncate(size_bytes)
    with _descriptor(path) as descriptor:
        blocks = list(file_blocks(descriptor, size_bytes, block_bytes=_BLOCK))
    assert b"".join(blocks) == path.read_bytes()
    assert {len(block) for block in blocks[:-1]} <= {_BLOCK}


def test_holes_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(8 * _BLOCK)
    with _descriptor(path) as descriptor:
        blocks = list(file_blocks(descriptor, 8 * _BLOCK, block_bytes=_BLOCK))
        assert list(file_samples(descriptor, 8 * _BLOCK)) == []
    assert all(block is blocks[0] for block in blocks)


def test_a_file_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * 100)
    with _descriptor(path) as descriptor, pytest.raises(VerificationError) as caught:
        list(file_blocks(descriptor, 200))
    assert caught.value.reason == "SizeMismatch"


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=300), most_bytes=st.integers(1, 50), block_bytes=st.integers(1, 100))
def test_streams_are_cut_into_blocks(content: bytes, most_bytes: int, block_bytes: int) -> None:
    class Stream:
        place = 0

        def read(self, size_bytes: int, /) -> bytes:
            piece = content[self.place : self.place + min(size_bytes, most_bytes)]
            self.place += len(piece)
            return piece

    blocks = list(stream_blocks(Stream(), block_bytes=block_bytes))
    assert blocks == [content[start : start + block_bytes] for start in range(0, len(content), block_bytes)]


@pytest.mark.parametrize(
    ("file_name", "disk_format", "expected"),
    [
        ("fedora-42.qcow2", DiskFormat.QCOW2, "fedora-42.qcow2"),
        ("cloud.img", DiskFormat.QCOW2, "cloud.img"),
        ("fedora.qcow2.xz", DiskFormat.QCOW2, "fedora.qcow2"),
        ("disk.raw.gz", DiskFormat.RAW, "disk.raw"),
        ("disk.qcow2", DiskFormat.RAW, "disk.img"),
        ("a b.qcow2", DiskFormat.QCOW2, "disk.qcow2"),
        (".qcow2", DiskFormat.QCOW2, "disk.qcow2"),
        ("loop0", DiskFormat.RAW, "disk.img"),
        ("install.iso", DiskFormat.ISO, "install.iso"),
        ("", DiskFormat.QCOW2, "disk.qcow2"),
    ],
)
def test_names(file_name: str, disk_format: DiskFormat, expected: str) -> None:
    assert name_in_image(file_name, disk_format) == expected


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(512))
    (tmp_path / "link.img").symlink_to("disk.img")
    with (
        pytest.raises(UsageError),
        open_disk(str(tmp_path / "link.img"), options=DiskOptions(), progress=SilentProgress()),
    ):
        pass


# --- URLs ---------------------------------------------------------------------------------------------------------------

_DISK = qcow2_image()


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as running:
        running.put_file("/images/fedora.qcow2", _DISK)
        yield running


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path


@contextlib.contextmanager
def _opened(url: str, scratch: Path, access: RegistryAccess | None = None) -> Iterator[DiskSource]:
    options = DiskOptions(scratch=scratch, access=access or patient())
    with open_disk(url, options=options, progress=SilentProgress()) as disk:
        yield disk


@pytest.mark.network
def test_a_url_is_looked_into_and_streamed(server: FaultServer, scratch: Path) -> None:
    with _opened(f"{server.origin}/images/fedora.qcow2?token=1", scratch) as disk:
        assert (disk.name, disk.size_bytes, disk.info.format) == ("fedora.qcow2", len(_DISK), DiskFormat.QCOW2)
        assert b"".join(disk.blocks()) == _DISK
        assert not list(scratch.iterdir())


@pytest.mark.network
@pytest.mark.parametrize("fault", [ignore_range(), together(ignore_range(), no_length())], ids=["no ranges", "no length"])
def test_a_server_that_cannot_seek_is_downloaded_from(fault: Fault, server: FaultServer, scratch: Path) -> None:
    server.always("GET /images", fault)
    with _opened(f"{server.origin}/images/fedora.qcow2", scratch) as disk:
        assert disk.name == "fedora.qcow2"
        assert b"".join(disk.blocks()) == _DISK
    assert not list(scratch.iterdir())


@pytest.mark.network
def test_a_compressed_url_is_downloaded_and_unpacked(server: FaultServer, scratch: Path) -> None:
    server.put_file("/fedora.qcow2.gz", gzip.compress(_DISK))
    with _opened(f"{server.origin}/fedora.qcow2.gz", scratch) as disk:
        assert (disk.name, disk.size_bytes) == ("fedora.qcow2", len(_DISK))
        assert b"".join(disk.blocks()) == _DISK
    assert not list(scratch.iterdir())


@pytest.mark.network
def test_an_unsafe_disk_behind_a_url_is_refused(server: FaultServer, scratch: Path) -> None:
    server.put_file("/evil.qcow2", with_backing_file(_DISK, "/etc/passwd"))
    with pytest.raises(ImageError) as caught, _opened(f"{server.origin}/evil.qcow2", scratch):
        pass
    assert caught.value.reason == "UnsafeImage"


@pytest.mark.network
def test_a_server_that_shows_another_disk_the_second_time_is_noticed(server: FaultServer, scratch: Path) -> None:
    server.always("GET /images", header(ETag=""))
    with _opened(f"{server.origin}/images/fedora.qcow2", scratch) as disk:
        list(disk.blocks())
        server.put_file("/images/fedora.qcow2", with_backing_file(_DISK, "/etc/passwd"))
        with pytest.raises(VerificationError) as caught:
            list(disk.blocks())
    assert caught.value.reason in ("SourceChanged", "SizeMismatch")


@pytest.mark.network
def test_the_registrys_credential_is_not_for_the_web_server(server: FaultServer, scratch: Path) -> None:
    access = replace(patient(), credential=CANARY, is_insecure=True)
    with _opened(f"{server.origin}/images/fedora.qcow2", scratch, access) as disk:
        list(disk.blocks())
    assert not [request for request in server.seen() if "authorization" in request.headers]
