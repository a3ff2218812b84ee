"""Block devices: their size, and making a range of one read as zeros without writing zeros where the kernel can."""

from __future__ import annotations

import fcntl
import os
import struct

from imagekit.base.units import KIB
from imagekit.stream.sparse import write_all, zeros

# <linux/fs.h>: _IO(0x12, 127), argument: two 64-bit numbers, start and length. The device zeroes the range itself where
# it can (as thin volumes and loop devices do) and the kernel writes zeros where it cannot: it reads as zeros either way.
_BLKZEROOUT = 0x127F
# Wider than any device's logical block, and a page: the page cache of what was written beside a gap stays untouched.
_ALIGNMENT_BYTES = 4 * KIB
_STEP_BYTES = 1 << 30


def device_size_bytes(descriptor: int) -> int:
    """Return the size of the device."""
    return os.lseek(descriptor, 0, os.SEEK_END)


def zero_range(descriptor: int, start_bytes: int, end_bytes: int) -> None:
    """Make a range of the device read as zeros.

    Raises:
        OSError: The device failed.
    """
    first = min(end_bytes, -(-start_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES)
    last = max(first, end_bytes // _ALIGNMENT_BYTES * _ALIGNMENT_BYTES)
    _write_zeros(descriptor, start_bytes, first)
    # In steps, so that a signal does not wait for a whole slow disk.
    for start in range(first, last, _STEP_BYTES):
        _zero_aligned(descriptor, start, min(last, start + _STEP_BYTES))
    _write_zeros(descriptor, last, end_bytes)


def _zero_aligned(descriptor: int, start_bytes: int, end_bytes: int) -> None:
    try:
        fcntl.ioctl(descriptor, _BLKZEROOUT, struct.pack("=QQ", start_bytes, end_bytes - start_bytes))
    except OSError:
        # A driver without it, or a device that failed: writing tells the two apart.
        _write_zeros(descriptor, start_bytes, end_bytes)


def _write_zeros(descriptor: int, start_bytes: int, end_bytes: int) -> None:
    while start_bytes < end_bytes:
        piece = zeros(end_bytes - start_bytes)
        write_all(descriptor, piece, start_bytes)
        start_bytes += len(piece)
