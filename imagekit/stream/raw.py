"""Raw disks (and ISO files, which are raw to everyone but a CD drive): bytes that lie where they belong."""

from __future__ import annotations

from imagekit.base.errors import ImageError, UsageError, VerificationError
from imagekit.base.units import MIB, format_size
from imagekit.image import DiskFormat
from imagekit.stream.base import ByteStream, DecodedDisk, DecodeLimits, DiskWriter, GrowingWriter, Milestones, RandomReader

_READ_BYTES = MIB
_SECTOR_BYTES = 512


def decode_raw_stream(
    image_format: DiskFormat, stream: ByteStream, writer: DiskWriter, *, size_bytes: int | None, limits: DecodeLimits
) -> DecodedDisk:
    """Write a raw disk that comes as a stream; its size is rounded up to sectors with zeros, as QEMU does.

    Args:
        size_bytes: Its length; None when only the end will tell, which needs a ``GrowingWriter``.

    Raises:
        VerificationError: The stream is shorter (``TruncatedStream``) or longer (``SizeMismatch``) than that.
        ImageError: It is empty or larger than the limit.
        NoSpaceError: It does not fit.
    """
    _require_size(size_bytes or 0, limits)
    disk = _KnownSize(writer, size_bytes) if size_bytes is not None else _GrowingSize(writer, limits)
    written_bytes = 0
    while chunk := stream.read(_READ_BYTES):
        disk.require_room(written_bytes + len(chunk))
        writer.write_at(written_bytes, chunk)
        written_bytes += len(chunk)
    virtual_size_bytes = disk.require_end(written_bytes)
    return DecodedDisk(format=image_format, virtual_size_bytes=virtual_size_bytes, written_bytes=written_bytes)


def decode_raw_random(
    image_format: DiskFormat, reader: RandomReader, writer: DiskWriter, *, limits: DecodeLimits, milestones: Milestones
) -> DecodedDisk:
    """Write a raw disk that can be read at any place; raises what ``decode_raw_stream`` raises."""
    size_bytes = reader.size_bytes
    _require_size(size_bytes, limits)
    disk = _KnownSize(writer, size_bytes)
    position = milestones.start_bytes
    while position < size_bytes and (chunk := reader.read_at(position, min(_READ_BYTES, size_bytes - position))):
        writer.write_at(position, chunk)
        position += len(chunk)
        if milestones.is_due():
            milestones.reach(position)
    return DecodedDisk(
        format=image_format,
        virtual_size_bytes=disk.require_end(position),
        written_bytes=position - milestones.start_bytes,
    )


class _KnownSize:
    def __init__(self, writer: DiskWriter, size_bytes: int) -> None:
        if size_bytes == 0:
            raise _empty()
        self._size_bytes = size_bytes
        writer.begin(_rounded(size_bytes))

    def require_room(self, needed_bytes: int) -> None:
        if needed_bytes > self._size_bytes:
            raise VerificationError(
                f"the raw disk is longer than the {self._size_bytes} bytes it should have", reason="SizeMismatch"
            )

    def require_end(self, end_bytes: int) -> int:
        if end_bytes != self._size_bytes:
            raise VerificationError(f"the raw disk ends after {end_bytes} of {self._size_bytes} bytes", reason="TruncatedStream")
        return _rounded(end_bytes)


class _GrowingSize:
    def __init__(self, writer: DiskWriter, limits: DecodeLimits) -> None:
        if not isinstance(writer, GrowingWriter):
            raise UsageError("a raw disk of unknown length cannot be written here", hint="give its size")
        self._writer = writer
        self._limits = limits
        writer.begin(0)

    def require_room(self, needed_bytes: int) -> None:
        _require_size(needed_bytes, self._limits)
        self._writer.grow(_rounded(needed_bytes))

    def require_end(self, end_bytes: int) -> int:
        if end_bytes == 0:
            raise _empty()
        return _rounded(end_bytes)


def _rounded(size_bytes: int) -> int:
    return -(-size_bytes // _SECTOR_BYTES) * _SECTOR_BYTES


def _require_size(size_bytes: int, limits: DecodeLimits) -> None:
    if size_bytes > limits.virtual_size_bytes:
        raise ImageError(f"the disk is larger than the limit of {format_size(limits.virtual_size_bytes)}", reason="TooLarge")


def _empty() -> ImageError:
    return ImageError("the raw disk is empty", hint="is the download complete?")
