"""A disk's bytes as blocks of one size: from a file, whose holes are not read, or from any stream."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from imagekit.base.errors import VerificationError
from imagekit.base.files import translate_os_error
from imagekit.stream.base import ByteStream
from registrydisk.compressor import BLOCK_BYTES

_SAMPLES = 16
_SAMPLE_BYTES = 64 * 1024


def file_blocks(descriptor: int, size_bytes: int, *, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yield the file in blocks; a block that is all hole is one and the same object, and costs no read.

    Raises:
        VerificationError: The file became shorter, with reason SizeMismatch.
    """
    zeros = bytes(block_bytes)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    data_at = -1  # not looked for yet
    for start in range(0, size_bytes, block_bytes):
        wanted = min(block_bytes, size_bytes - start)
        if data_at < start:
            data_at = _next_data(descriptor, start, size_bytes)
        yield zeros[:wanted] if data_at >= start + wanted else read_fully_at(descriptor, start, wanted)


def stream_blocks(stream: ByteStream, *, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yield the stream in blocks of one size, but for the last."""
    pieces: list[bytes] = []
    have_bytes = 0
    while piece := stream.read(block_bytes - have_bytes):
        pieces.append(piece)
        have_bytes += len(piece)
        if have_bytes == block_bytes:
            yield b"".join(pieces)
            pieces, have_bytes = [], 0
    if pieces:
        yield b"".join(pieces)


def file_samples(descriptor: int, size_bytes: int) -> Iterator[bytes]:
    """Yield pieces of data from all over the file, none from its holes."""
    seen: set[int] = set()
    for number in range(_SAMPLES):
        start = _next_data(descriptor, number * size_bytes // _SAMPLES, size_bytes)
        if start < size_bytes and start not in seen:
            seen.add(start)
            yield os.pread(descriptor, _SAMPLE_BYTES, start)


def read_fully_at(descriptor: int, start: int, size_bytes: int) -> bytes:
    """Return exactly these bytes of the file.

    Raises:
        VerificationError: The file ends before, with reason SizeMismatch.
    """
    try:
        content = os.pread(descriptor, size_bytes, start)
        while len(content) < size_bytes:
            more = os.pread(descriptor, size_bytes - len(content), start + len(content))
            if not more:
                raise VerificationError("the disk became shorter while it was read", reason="SizeMismatch")
            content += more
    except OSError as error:
        raise translate_os_error(error, doing="read the disk") from error
    return content


def _next_data(descriptor: int, start: int, size_bytes: int) -> int:
    """Return where data begins at or after ``start``; a file system without holes says data everywhere."""
    try:
        return os.lseek(descriptor, start, os.SEEK_DATA)
    except OSError as error:
        return size_bytes if error.errno == errno.ENXIO else start
