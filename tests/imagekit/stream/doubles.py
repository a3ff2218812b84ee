"""The ends of the data path, in memory and strict: a stream in odd pieces, and a disk that no two writes may touch."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from typing import BinaryIO

from imagekit.image import DiskFormat
from imagekit.stream import DecodedDisk, DecodeLimits, decode_random, decode_stream
from tests.support.images import BytesReader


class ChoppyStream:
    """Returns what it has in pieces of odd sizes, as a pipe does; it cannot seek."""

    def __init__(self, content: bytes, *, seed: int = 0, most_bytes: int = 1 << 17) -> None:
        self._content = memoryview(content)
        self._random = random.Random(seed)
        self._most_bytes = most_bytes

    def read(self, size_bytes: int, /) -> bytes:
        taken = min(size_bytes, self._random.randint(1, self._most_bytes))
        piece, self._content = bytes(self._content[:taken]), self._content[taken:]
        return piece


class MemoryDisk:
    """A DiskWriter that keeps the disk, and fails when a byte is written twice or beside the disk."""

    capacity_bytes = None

    def __init__(self) -> None:
        self.content = bytearray()
        self._is_written = bytearray()
        self.sizes: list[int] = []

    def begin(self, virtual_size_bytes: int) -> None:
        self.sizes.append(virtual_size_bytes)
        self.grow(virtual_size_bytes)

    def grow(self, virtual_size_bytes: int) -> None:
        for buffer in (self.content, self._is_written):
            buffer.extend(bytes(max(0, virtual_size_bytes - len(buffer))))

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        end = offset_bytes + len(data)
        assert 0 <= offset_bytes < end <= len(self.content), "a write beside the disk"
        assert not any(self._is_written[offset_bytes:end]), "a second write to the same place"
        self._is_written[offset_bytes:end] = b"\1" * len(data)
        self.content[offset_bytes:end] = data

    def finish(self) -> None:
        raise AssertionError("finish is for the decoder's caller")


def open_spill() -> BinaryIO:
    """Open the temporary file of a test."""
    return tempfile.TemporaryFile()


def streamed(
    image: bytes,
    *,
    image_format: DiskFormat = DiskFormat.QCOW2,
    seed: int = 0,
    limits: DecodeLimits | None = None,
    spill: Callable[[], BinaryIO] | None = open_spill,
) -> tuple[bytes, DecodedDisk]:
    """Decode an image that comes through a pipe."""
    disk = MemoryDisk()
    decoded = decode_stream(image_format, ChoppyStream(image, seed=seed), disk, limits=limits or DecodeLimits(), open_spill=spill)
    return bytes(disk.content), decoded


def read_at_random(image: bytes, *, image_format: DiskFormat = DiskFormat.QCOW2) -> tuple[bytes, DecodedDisk]:
    """Decode an image that can be read at any place."""
    disk = MemoryDisk()
    decoded = decode_random(image_format, BytesReader(image), disk)
    return bytes(disk.content), decoded
