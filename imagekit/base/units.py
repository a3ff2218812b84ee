"""Sizes, rates and durations as people write them, parsed once at the edge."""

from __future__ import annotations

import re
from fractions import Fraction

from imagekit.base.errors import UsageError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_SIZE = re.compile(r"(?P<number>\d{1,24}(?:\.\d{1,24})?)\s*(?P<unit>[kmgtpe]?)(?P<binary>i?)b?", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` names: ``1048576``, ``10G``, ``10Gi`` or ``1.5GiB``.

    All units are binary, as qemu-img reads them: ``G`` and ``Gi`` are both 2**30.

    Raises:
        UsageError: ``text`` is not a size, or is not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size", hint="write a number with a unit, like 512M, 10G or 10Gi")
    number, power = match["number"], _POWERS[match["unit"].lower()]
    size = Fraction(number) * 1024**power
    if size.denominator != 1:
        raise UsageError(f"{text!r} is not a whole number of bytes")
    return int(size)


def format_size(size_bytes: float) -> str:
    """Return ``size_bytes`` for a reader, in binary units: ``1.5 GiB``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def format_duration(seconds: float) -> str:
    """Return ``seconds`` for a reader: ``0.4 s``, ``42 s``, ``3m05s`` or ``2h10m``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
