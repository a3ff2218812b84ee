"""A stream cut into windows of a few megabytes, each with the end of the one before where that is still needed."""

from __future__ import annotations

from dataclasses import dataclass

from imagekit.base.errors import VerificationError
from imagekit.base.units import MIB
from imagekit.stream.base import ByteStream

_READ_BYTES = MIB
_WINDOW_BYTES = 2 * MIB


@dataclass(slots=True, kw_only=True)
class Window:
    """Consecutive bytes of the stream, in one piece.

    Attributes:
        start: Offset of the first byte.
        is_last: Whether the stream ends with it.
    """

    start: int
    view: memoryview
    is_last: bool

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        return self.start + len(self.view)

    def cut(self, offset_bytes: int, end_bytes: int) -> memoryview:
        """Return the bytes between two offsets of the stream, as far as they are here."""
        return self.view[max(0, offset_bytes - self.start) : max(0, end_bytes - self.start)]


class WindowReader:
    """Reads a stream window by window.

    Args:
        size_bytes: Length that the stream must have; unknown when None.
    """

    def __init__(self, stream: ByteStream, *, size_bytes: int | None) -> None:
        self._stream = stream
        self._size_bytes = size_bytes
        self._window = Window(start=0, view=memoryview(b""), is_last=False)

    def read(self, keep_from: int) -> Window:
        """Return the next window: what the last one had from ``keep_from`` on, and 2 MiB more unless the stream ends.

        Raises:
            VerificationError: The stream does not have the length that it must have.
        """
        parts: list[bytes | memoryview] = []
        if kept := self._window.cut(keep_from, self._window.end):
            parts.append(kept)
        fresh_bytes = 0
        is_last = False
        while fresh_bytes < _WINDOW_BYTES and not is_last:
            chunk = self._stream.read(_READ_BYTES)
            is_last = not chunk
            parts.append(chunk)
            fresh_bytes += len(chunk)
        self._window = Window(start=keep_from, view=memoryview(b"".join(parts)), is_last=is_last)
        self._require_length()
        return self._window

    def _require_length(self) -> None:
        end, size_bytes = self._window.end, self._size_bytes
        if size_bytes is None:
            return
        if end > size_bytes:
            raise VerificationError(f"the image is longer than the {size_bytes} bytes it should have", reason="SizeMismatch")
        if self._window.is_last and end < size_bytes:
            raise VerificationError(f"the image ends after {end} of {size_bytes} bytes", reason="TruncatedStream")
