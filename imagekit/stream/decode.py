"""One way to each decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from imagekit.base.errors import UsageError
from imagekit.image import DiskFormat
from imagekit.stream.base import ByteStream, DecodedDisk, DecodeLimits, DiskWriter, FromTheStart, Milestones, RandomReader
from imagekit.stream.qcow2 import decode_qcow2_stream
from imagekit.stream.qcow2_random import decode_qcow2_random
from imagekit.stream.raw import decode_raw_random, decode_raw_stream

STREAMED_FORMATS = frozenset({DiskFormat.RAW, DiskFormat.ISO, DiskFormat.QCOW2})
_DEFAULT_LIMITS = DecodeLimits()
_FROM_THE_START = FromTheStart()


def decode_stream(
    image_format: DiskFormat,
    stream: ByteStream,
    writer: DiskWriter,
    *,
    size_bytes: int | None = None,
    limits: DecodeLimits = _DEFAULT_LIMITS,
    open_spill: Callable[[], BinaryIO] | None = None,
) -> DecodedDisk:
    """Write the disk in a stream, which is read to its end; ``writer.finish`` is left to the caller.

    Args:
        image_format: What the inspector said it is.
        size_bytes: Length of the stream, where it is known.
        open_spill: Opens an unlinked temporary file for what does not fit into ``limits.pending_bytes``; without it,
            LateTablesError is raised then.

    Raises:
        UsageError: No decoder reads this format (it is not in ``STREAMED_FORMATS``).
        ImageError: The image is unsafe, damaged or exceeds a limit.
        VerificationError: The stream does not have the length that ``size_bytes`` or its tables say.
        NoSpaceError: The disk does not fit; nothing was written when its size says so.
    """
    _require_streamed(image_format)
    if image_format is DiskFormat.QCOW2:
        return decode_qcow2_stream(stream, writer, size_bytes=size_bytes, limits=limits, open_spill=open_spill)
    return decode_raw_stream(image_format, stream, writer, size_bytes=size_bytes, limits=limits)


def decode_random(
    image_format: DiskFormat,
    reader: RandomReader,
    writer: DiskWriter,
    *,
    limits: DecodeLimits = _DEFAULT_LIMITS,
    milestones: Milestones = _FROM_THE_START,
) -> DecodedDisk:
    """Write the disk in a file that can be read at any place; ``writer.finish`` is left to the caller.

    Tables are read first, then what is allocated, in the order of the file. Raises what ``decode_stream`` raises.

    Args:
        milestones: Data in the file before where they start is neither read nor written.
    """
    _require_streamed(image_format)
    if image_format is DiskFormat.QCOW2:
        return decode_qcow2_random(reader, writer, limits=limits, milestones=milestones)
    return decode_raw_random(image_format, reader, writer, limits=limits, milestones=milestones)


def _require_streamed(image_format: DiskFormat) -> None:
    if image_format not in STREAMED_FORMATS:
        raise UsageError(f"{image_format.value} images are not read as streams", hint="convert it with `imagekit convert` first")
