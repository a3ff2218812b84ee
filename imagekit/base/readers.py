"""Where bytes come from: in order, or at any place; below every module that reads."""

from __future__ import annotations

from typing import Protocol


class ByteStream(Protocol):
    """Bytes in order, once: the reading half of a binary file."""

    def read(self, size_bytes: int, /) -> bytes:
        """Return 1 to ``size_bytes`` bytes, or ``b""`` at the end."""
        ...


class RandomReader(Protocol):
    """Bytes at any place: a local file, or a remote one through Range requests."""

    @property
    def size_bytes(self) -> int:
        """Length of the whole."""
        ...

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return exactly ``size_bytes`` from ``offset_bytes``, or fewer only at the end."""
        ...
