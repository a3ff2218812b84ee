"""Where bytes come from: in order, or at any place; below every module that reads."""

from __future__ import annotations

from collections.abc import Callable
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


class CountedStream:
    """A stream that tells how many bytes pass."""

    def __init__(self, stream: ByteStream, on_bytes: Callable[[int], None]) -> None:
        self._stream = stream
        self._on_bytes = on_bytes

    def read(self, size_bytes: int, /) -> bytes:
        """Return the next bytes."""
        chunk = self._stream.read(size_bytes)
        self._on_bytes(len(chunk))
        return chunk


class CountedReader:
    """A reader at any place that tells how many bytes were read."""

    def __init__(self, reader: RandomReader, on_bytes: Callable[[int], None]) -> None:
        self._reader = reader
        self._on_bytes = on_bytes

    @property
    def size_bytes(self) -> int:
        """Length of the whole."""
        return self._reader.size_bytes

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return ``size_bytes`` from ``offset_bytes``."""
        chunk = self._reader.read_at(offset_bytes, size_bytes)
        self._on_bytes(len(chunk))
        return chunk
