"""Layers that we write: what is in them, that they are the same each time, and that everybody reads them."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
import zlib
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import UsageError, VerificationError
from registrydisk.compressor import BLOCK_BYTES, BlockCompressor, LayerMode, gzip_member, stored_member
from registrydisk.digest import Digest
from registrydisk.layer import DiskFile, WrittenLayer, write_layer
from registrydisk.tar_header import EntryKind, TarHeader, format_header
from tests.support.memory_store import MemoryStore

_MODES = [LayerMode.STORE, LayerMode.GZIP, LayerMode.ZSTD, LayerMode.NONE]
_DISK = random.Random(7).randbytes(BLOCK_BYTES + 1000) + bytes(2 * BLOCK_BYTES) + b"end" * 1000


def _blocks(disk: bytes) -> Iterator[bytes]:
    for start in range(0, len(disk), BLOCK_BYTES):
        yield disk[start : start + BLOCK_BYTES]


def _written(disk: bytes, mode: LayerMode, threads: int = 2) -> tuple[WrittenLayer, bytes]:
    store = MemoryStore()
    file = DiskFile(name="disk.img", size_bytes=len(disk))
    layer = write_layer(_blocks(disk), file, store, compressor=BlockCompressor(mode, threads=threads))
    return layer, store.blobs[layer.descriptor.digest]


def _plain(blob: bytes, mode: LayerMode) -> bytes:
    if mode is LayerMode.NONE:
        return blob
    if mode is LayerMode.ZSTD:
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(blob), read_across_frames=True).read()
    return gzip.decompress(blob)


@pytest.mark.parametrize("mode", _MODES)
def test_python_reads_the_layer_back(mode: LayerMode) -> None:
    layer, blob = _written(_DISK, mode)
    archive = _plain(blob, mode)
    assert layer.diff_id == Digest.of(archive)
    assert layer.payload_digest == Digest.of(_DISK)
    assert layer.descriptor.size_bytes == len(blob)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        directory, disk = tar.getmembers()
        assert (directory.name, directory.isdir(), directory.mode) == ("disk", True, 0o555)
        assert (disk.name, disk.isreg(), disk.mode, disk.mtime) == ("disk/disk.img", True, 0o444, 0)
        assert {(member.uid, member.gid, member.uname) for member in (directory, disk)} == {(107, 107, "qemu")}
        extracted = tar.extractfile(disk)
        assert extracted is not None
        assert extracted.read() == _DISK


@pytest.mark.parametrize("mode", _MODES)
def test_threads_do_not_change_the_bytes(mode: LayerMode) -> None:
    assert _written(_DISK, mode, threads=1) == _written(_DISK, mode, threads=5)


def test_stored_layers_have_the_same_digest_forever() -> None:
    """No library's version is in these bytes; changing them would change every digest that was ever published."""
    layer, _ = _written(b"disk" * 1000, LayerMode.STORE)
    assert layer.diff_id.encoded == "f14fdcd54cf92851d8ae2f0433c2d4b982cc9e2622ca7b9f09af490057eb7820"
    assert layer.descriptor.digest.encoded == "9507c3323cfdf8df4292dcca04bf7636ca0f489640339dd4680337137e1f5854"


def test_the_disk_begins_at_a_member_of_its_own() -> None:
    _, blob = _written(b"disk" * 1000, LayerMode.GZIP)
    head = zlib.decompressobj(31)
    assert len(head.decompress(blob)) == 1024
    assert gzip.decompress(head.unused_data).startswith(b"disk" * 1000)


def test_entries_may_follow_the_disk() -> None:
    entry = format_header(TarHeader(name="index.json", kind=EntryKind.FILE, size_bytes=2)) + b"{}" + bytes(510)
    file = DiskFile(name="a", size_bytes=3, trailing_entries=(entry,))
    store = MemoryStore()
    layer = write_layer([b"abc"], file, store, compressor=BlockCompressor(LayerMode.NONE))
    with tarfile.open(fileobj=io.BytesIO(store.blobs[layer.descriptor.digest])) as tar:
        assert tar.getnames() == ["disk", "disk/a", "index.json"]
    assert layer.descriptor.size_bytes == file.archive_bytes()


@pytest.mark.parametrize("promised_bytes", [2, 4])
@pytest.mark.parametrize("mode", [LayerMode.GZIP, LayerMode.NONE])
def test_a_disk_that_changes_while_it_is_read_leaves_nothing(promised_bytes: int, mode: LayerMode) -> None:
    store = MemoryStore()
    with pytest.raises(VerificationError) as caught:
        write_layer([b"abc"], DiskFile(name="a", size_bytes=promised_bytes), store, compressor=BlockCompressor(mode))
    assert caught.value.reason == "SizeMismatch"
    assert not store.blobs


def test_a_failing_source_stops_the_threads() -> None:
    def blocks() -> Iterator[bytes]:
        yield bytes(BLOCK_BYTES)
        raise OSError("the disk broke")

    with pytest.raises(OSError, match="the disk broke"):
        write_layer(blocks(), DiskFile(name="a", size_bytes=8), MemoryStore(), compressor=BlockCompressor(LayerMode.GZIP))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 3))
def test_members_are_gzip(block: bytes, level: int) -> None:
    assert gzip.decompress(gzip_member(block, level=level)) == block
    assert gzip.decompress(stored_member(block)) == block if block else True


@pytest.mark.parametrize("size_bytes", [1, 65_534, 65_535, 65_536, 131_070, 200_000])
def test_stored_members_at_block_borders(size_bytes: int) -> None:
    block = hashlib.shake_128(b"").digest(size_bytes)
    assert gzip.decompress(stored_member(block)) == block
    assert len(stored_member(block)) <= size_bytes + 18 + 5 * (size_bytes // 65_535 + 1)


def test_zeros_are_compressed_once() -> None:
    compressor = BlockCompressor(LayerMode.GZIP, threads=1)
    pieces = list(compressor.compressed(iter([bytes(BLOCK_BYTES)] * 3)))
    assert pieces[0] is pieces[2]


@pytest.mark.parametrize(
    ("mode", "level"), [(LayerMode.GZIP, 9), (LayerMode.ZSTD, 0), (LayerMode.STORE, 1), (LayerMode.NONE, 0), (LayerMode.GZIP, -1)]
)
def test_levels_that_do_not_exist_are_refused(mode: LayerMode, level: int) -> None:
    with pytest.raises(UsageError):
        BlockCompressor(mode, level=level)


def test_descriptions_name_what_made_the_bytes() -> None:
    assert BlockCompressor(LayerMode.GZIP).description.startswith("gzip;engine=isal/")
    assert BlockCompressor(LayerMode.STORE).description == f"gzip;engine=stored;block={BLOCK_BYTES}"
    assert BlockCompressor(LayerMode.NONE).description == "none"
