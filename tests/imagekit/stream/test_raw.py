"""Raw disks: of known and unknown length, whole and broken."""

from __future__ import annotations

import pytest

from imagekit.base.errors import ImageError, UsageError, VerificationError
from imagekit.base.units import MIB
from imagekit.image import DiskFormat
from imagekit.stream import STREAMED_FORMATS, DecodeLimits, decode_random, decode_stream
from tests.imagekit.stream.doubles import ChoppyStream, MemoryDisk, read_at_random, streamed
from tests.support.images import BytesReader, sample_disk

DISK = sample_disk() + b"the end"
PADDED = DISK + bytes(512 - 7)


@pytest.mark.parametrize("image_format", [DiskFormat.RAW, DiskFormat.ISO])
@pytest.mark.parametrize("size", [len(DISK), None])
def test_the_size_is_rounded_up_to_sectors(image_format: DiskFormat, size: int | None) -> None:
    disk = MemoryDisk()
    decoded = decode_stream(image_format, ChoppyStream(DISK), disk, size_bytes=size)
    assert bool(bytes(disk.content) == PADDED)
    assert (decoded.format, decoded.virtual_size_bytes, decoded.written_bytes) == (image_format, len(PADDED), len(DISK))
    assert disk.sizes == [len(PADDED) if size else 0]


def test_random() -> None:
    content, decoded = read_at_random(DISK, image_format=DiskFormat.RAW)
    assert bool(content == PADDED)
    assert decoded.virtual_size_bytes == len(PADDED)


@pytest.mark.parametrize(("size", "reason"), [(len(DISK) + 1, "TruncatedStream"), (len(DISK) - 1, "SizeMismatch")])
def test_another_length_than_promised(size: int, reason: str) -> None:
    with pytest.raises(VerificationError) as caught:
        decode_stream(DiskFormat.RAW, ChoppyStream(DISK), MemoryDisk(), size_bytes=size)
    assert caught.value.reason == reason


@pytest.mark.parametrize("size", [0, None])
def test_nothing_is_no_disk(size: int | None) -> None:
    with pytest.raises(ImageError):
        decode_stream(DiskFormat.RAW, ChoppyStream(b""), MemoryDisk(), size_bytes=size)
    with pytest.raises(ImageError):
        decode_random(DiskFormat.RAW, BytesReader(b""), MemoryDisk())


@pytest.mark.parametrize("size", [len(DISK), None])
def test_the_limit(size: int | None) -> None:
    disk = MemoryDisk()
    with pytest.raises(ImageError) as caught:
        decode_stream(DiskFormat.RAW, ChoppyStream(DISK), disk, size_bytes=size, limits=DecodeLimits(virtual_size_bytes=MIB // 2))
    assert caught.value.reason == "TooLarge"
    assert len(disk.content) <= MIB // 2


class FixedDisk:
    """A DiskWriter that cannot grow."""

    capacity_bytes = None

    def begin(self, virtual_size_bytes: int) -> None:
        raise AssertionError("never begun")

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        raise AssertionError("never written")

    def finish(self) -> None:
        raise AssertionError("never finished")


def test_a_disk_that_cannot_grow_needs_the_size() -> None:
    with pytest.raises(UsageError):
        decode_stream(DiskFormat.RAW, ChoppyStream(DISK), FixedDisk())


@pytest.mark.parametrize("image_format", sorted(set(DiskFormat) - STREAMED_FORMATS))
def test_formats_without_a_decoder(image_format: DiskFormat) -> None:
    with pytest.raises(UsageError):
        streamed(DISK, image_format=image_format)
    with pytest.raises(UsageError):
        read_at_random(DISK, image_format=image_format)
