"""Raw disks: what remains when no other format matches."""

from __future__ import annotations

from imagekit.formats.facts import FormatFacts
from imagekit.image import Finding


def read_raw(size_bytes: int, *, stored_bytes: int | None) -> FormatFacts:
    """Return what is known of a raw disk.

    Args:
        stored_bytes: What the file takes on its file system, holes left out; None when unknown.
    """
    empty = Finding(rule="virtual-size", message="it is empty")
    return FormatFacts(
        virtual_size_bytes=size_bytes,
        allocated_bytes=None if stored_bytes is None else min(stored_bytes, size_bytes),
        findings=() if size_bytes else (empty,),
    )
