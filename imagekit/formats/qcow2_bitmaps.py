"""What the persistent bitmaps of a qcow2 image cost: QEMU holds all of them in memory as soon as it opens the image.

Source: docs/interop/qcow2.txt of QEMU, section "Bitmaps". A bitmap that is all ones takes a few bytes of the file.
"""

from __future__ import annotations

import struct

from imagekit.base.readers import RandomReader
from imagekit.base.units import MIB, format_size
from imagekit.formats.qcow2 import Qcow2Header
from imagekit.image import Finding

MOST_BITMAP_BYTES = 256 * MIB  # four bitmaps of a 32 TiB disk, a bit for each 64 KiB
_ENTRY = struct.Struct(">QIIBBHI")


def bitmap_findings(header: Qcow2Header, reader: RandomReader) -> tuple[Finding, ...]:
    """Return what is wrong with the bitmaps together; their directory must have no finding of its own."""
    directory = header.bitmap_directory
    needed_bytes = sum(_memory_bytes(header, reader.read_at(directory.start, len(directory)))) if directory else 0
    if needed_bytes <= MOST_BITMAP_BYTES:
        return ()
    most = format_size(MOST_BITMAP_BYTES)
    return (Finding(rule="bitmaps", message=f"its bitmaps need {format_size(needed_bytes)} of memory, more than {most}"),)


def _memory_bytes(header: Qcow2Header, directory: bytes) -> list[int]:
    needed, position = [], 0
    while position + _ENTRY.size <= len(directory):
        _table, _entries, _flags, _kind, granularity_bits, name_bytes, extra_bytes = _ENTRY.unpack_from(directory, position)
        needed.append((header.virtual_size_bytes >> granularity_bits) // 8)
        position += (_ENTRY.size + extra_bytes + name_bytes + 7) & ~7
    return needed
