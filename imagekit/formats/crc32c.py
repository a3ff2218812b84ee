"""CRC-32C (Castagnoli), which VHDX guards its structures with; for the few of them an image has.

Source: RFC 3720, section 12.1. The standard library has only the other polynomial.
"""

from __future__ import annotations

from functools import cache

_POLYNOMIAL = 0x82F6_3B78


@cache
def _table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc32c(content: bytes) -> int:
    """Return the checksum of ``content``."""
    table, value = _table(), 0xFFFF_FFFF
    for byte in content:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFF_FFFF
