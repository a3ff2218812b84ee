"""Writing data in place, and finding the zeros in it at the speed of memcmp, so that they become holes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from imagekit.base.units import KIB

PAGE_BYTES = 4 * KIB
BLOCK_BYTES = 64 * KIB
_ZEROS = bytes(1024 * KIB)


def is_zero(view: bytes | memoryview) -> bool:
    """Return whether every byte is zero."""
    # bytes.startswith compares any buffer with memcmp, without a copy, and stops at the first difference.
    if len(view) <= len(_ZEROS):
        return _ZEROS.startswith(view)
    return all(_ZEROS.startswith(view[start : start + len(_ZEROS)]) for start in range(0, len(view), len(_ZEROS)))


def nonzero_extents(view: memoryview, offset_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield start and end, in ``view``, of the parts worth writing; what lies between is zero.

    Blocks of 64 KiB on the disk (``offset_bytes`` is the place of ``view`` there) are left out when they are zero, and
    cut to the page where they begin or end with zeros: holes inside a block would cost more calls than they save.
    """
    if is_zero(view):
        return
    pending_start = pending_end = 0
    start = 0
    while start < len(view):
        end = min(len(view), start + BLOCK_BYTES - (offset_bytes + start) % BLOCK_BYTES)
        first, last = _trimmed(view, start, end)
        if first < last:
            if first != pending_end:
                if pending_start < pending_end:
                    yield pending_start, pending_end
                pending_start = first
            pending_end = last
        start = end
    if pending_start < pending_end:
        yield pending_start, pending_end


def _trimmed(view: memoryview, start: int, end: int) -> tuple[int, int]:
    if _ZEROS.startswith(view[start:end]):
        return start, start
    while _ZEROS.startswith(view[start : start + PAGE_BYTES]):
        start += PAGE_BYTES
    while end - start > PAGE_BYTES and _ZEROS.startswith(view[end - PAGE_BYTES : end]):
        end -= PAGE_BYTES
    return start, end


def zeros(size_bytes: int) -> memoryview:
    """Return at most 1 MiB of zeros, as many as ``size_bytes``, without allocating."""
    return memoryview(_ZEROS)[:size_bytes]


def write_all(descriptor: int, view: memoryview, offset_bytes: int) -> None:
    """Write all of ``view`` at its place; the kernel may take less at once, near a full disk or a limit."""
    while view:
        written_bytes = os.pwrite(descriptor, view, offset_bytes)
        view, offset_bytes = view[written_bytes:], offset_bytes + written_bytes
