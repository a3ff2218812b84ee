"""ISO 9660 and UDF: read-only file systems that are handed to a guest as they are.

Source: ECMA-119, section 8.4 (primary volume descriptor).
"""

from __future__ import annotations

from imagekit.base.readers import RandomReader
from imagekit.formats.facts import FormatFacts

_DESCRIPTOR = slice(16 * 2048, 17 * 2048)
_PRIMARY = b"\x01CD001"


def read_iso(reader: RandomReader, head: bytes) -> FormatFacts:
    """Return what an ISO image says of itself; nothing in it can make the host read elsewhere."""
    descriptor = head[_DESCRIPTOR]
    is_primary = descriptor.startswith(_PRIMARY)
    label = descriptor[40:72].decode("ascii", "replace").rstrip(" \0") if is_primary else ""
    details: dict[str, str | int | bool] = {"volume_label": label} if label.isprintable() and label else {}
    return FormatFacts(virtual_size_bytes=reader.size_bytes, allocated_bytes=reader.size_bytes, details=details)
