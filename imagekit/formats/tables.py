"""Tables of numbers in images, and what holds for every format's block map."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from typing import Literal

from imagekit.base.errors import ImageError
from imagekit.base.readers import RandomReader
from imagekit.image import Finding

_MOST_BLOCKS = 1 << 28  # one byte of memory each, touched only where the map points


def read_table(
    reader: RandomReader, *, offset_bytes: int, entries: int, entry_bytes: Literal[4, 8], byte_order: Literal["big", "little"]
) -> array[int]:
    """Return table entries, as many as the file has; the caller bounds ``entries``."""
    content = reader.read_at(offset_bytes, entries * entry_bytes)
    table = array("Q" if entry_bytes == 8 else "I", content[: len(content) - len(content) % entry_bytes])
    if sys.byteorder != byte_order:
        table.byteswap()
    return table


def unreadable(message: str) -> ImageError:
    """Return the error for an image whose structure makes no sense."""
    return ImageError(message, hint="the image is damaged or made to harm; make it again where it comes from")


def count_blocks(starts: Iterable[int], *, spacing_bytes: int, file_size_bytes: int) -> tuple[int, tuple[Finding, ...]]:
    """Count blocks that begin at ``starts``, and tell what is wrong with them.

    A block must begin inside the file, and ``spacing_bytes`` from every other; ``starts`` is never held in memory.
    """
    places = -(-file_size_bytes // spacing_bytes)
    if places > _MOST_BLOCKS:
        return 0, (Finding(rule="cluster-count", message=f"its file has room for {places} blocks, more than {_MOST_BLOCKS}"),)
    is_taken = bytearray(places)
    findings: dict[str, Finding] = {}
    count = 0
    for start in starts:
        count += 1
        if start >= file_size_bytes:
            message = f"the block at {start} is outside the file of {file_size_bytes} bytes"
            findings.setdefault("outside-file", Finding(rule="outside-file", message=message))
        elif is_taken[start // spacing_bytes]:
            message = f"the block at {start} lies over another"
            findings.setdefault("cluster-overlap", Finding(rule="cluster-overlap", message=message))
        else:
            is_taken[start // spacing_bytes] = 1
    return count, tuple(findings.values())
