"""A run that goes on where another ended: the two write what one whole run writes, and the second reads no data twice."""

from __future__ import annotations

import random

import pytest

from imagekit.base.units import MIB
from imagekit.image import DiskFormat
from imagekit.stream import decode_random
from tests.support.images import BytesReader, qcow2_image

SOURCE = random.Random(2)
DISK = b"".join(SOURCE.randbytes(MIB) if number % 3 else bytes(MIB) for number in range(12))
SOFT_DISK = b"".join(SOURCE.randbytes(500) + bytes(524) for _ in range(8 * 1024))
IMAGES = {
    "raw": (DiskFormat.RAW, DISK, DISK),
    "qcow2": (DiskFormat.QCOW2, DISK, qcow2_image(DISK)),
    "zlib": (DiskFormat.QCOW2, SOFT_DISK, qcow2_image(SOFT_DISK, compression="zlib")),
    "zstd": (DiskFormat.QCOW2, SOFT_DISK, qcow2_image(SOFT_DISK, compression="zstd")),
}


class MemoryWriter:
    """A disk in memory, that keeps what it has when it begins again."""

    capacity_bytes = None

    def __init__(self) -> None:
        self.disk = bytearray()

    def begin(self, virtual_size_bytes: int) -> None:
        self.disk = self.disk or bytearray(virtual_size_bytes)

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        self.disk[offset_bytes : offset_bytes + len(data)] = data

    def finish(self) -> None:
        """Nothing is to be made durable."""


class AllMilestones:
    """Hears of every milestone, and keeps what the writer had by then."""

    def __init__(self, writer: MemoryWriter, *, start_bytes: int = 0) -> None:
        self.start_bytes = start_bytes
        self.heard: list[tuple[int, bytes]] = []
        self._writer = writer

    def is_due(self) -> bool:
        return True

    def reach(self, done_bytes: int) -> None:
        self.heard.append((done_bytes, bytes(self._writer.disk)))


class CountingReader(BytesReader):
    """Counts what is read."""

    read_bytes = 0

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        content = super().read_at(offset_bytes, size_bytes)
        self.read_bytes += len(content)
        return content


@pytest.mark.parametrize("name", IMAGES)
def test_any_milestone_is_a_good_place_to_go_on(name: str) -> None:
    image_format, disk, image = IMAGES[name]
    writer = MemoryWriter()
    milestones = AllMilestones(writer)
    decode_random(image_format, BytesReader(image), writer, milestones=milestones)
    assert writer.disk == disk
    offsets = [offset for offset, _ in milestones.heard]
    assert offsets == sorted(offsets)
    assert len(offsets) >= 2
    for offset, had in milestones.heard[:: max(1, len(offsets) // 5)]:
        writer.disk = bytearray(had)
        reader = CountingReader(image)
        decode_random(image_format, reader, writer, milestones=AllMilestones(writer, start_bytes=offset))
        assert writer.disk == disk
        assert reader.read_bytes <= len(image) - offset + MIB // 2


def test_the_end_of_the_file_is_a_place_too() -> None:
    writer = MemoryWriter()
    writer.disk = bytearray(DISK)
    decoded = decode_random(DiskFormat.RAW, BytesReader(DISK), writer, milestones=AllMilestones(writer, start_bytes=len(DISK)))
    assert decoded.written_bytes == 0
    assert writer.disk == DISK
