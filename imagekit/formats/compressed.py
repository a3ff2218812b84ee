"""What is inside a compressed file, read as if it could be read at any place.

The stream is decompressed once for its length and both ends, which stay in memory, and again for what lies between.
Readers that ask in rising order cost one more pass; an image that makes them jump is refused after a few.
"""

from __future__ import annotations

from collections.abc import Callable

from imagekit.base.errors import ImageError
from imagekit.base.readers import ByteStream, RandomReader
from imagekit.base.units import MIB, TIB, format_size

MOST_DECOMPRESSED_BYTES = TIB
_HEAD_BYTES = 4 * MIB
_TAIL_BYTES = 4096
_PIECE_BYTES = MIB
_MOST_PASSES = 8


class ReaderStream:
    """The bytes of a RandomReader in order."""

    def __init__(self, reader: RandomReader) -> None:
        self._reader = reader
        self._position = 0

    def read(self, size_bytes: int, /) -> bytes:
        """Return 1 to ``size_bytes`` bytes, or ``b""`` at the end."""
        content = self._reader.read_at(self._position, size_bytes)
        self._position += len(content)
        return content


class DecompressedReader:
    """A RandomReader of a stream that can be opened again.

    Args:
        open_stream: Returns the decompressed stream from its start; closing it is the caller's.

    Raises:
        ImageError: There is more inside than ``most_bytes`` (``TooLarge``).
        VerificationError: The stream is damaged or ends early.
    """

    def __init__(self, open_stream: Callable[[], ByteStream], *, most_bytes: int = MOST_DECOMPRESSED_BYTES) -> None:
        self._open_stream = open_stream
        self._passes = 0
        self._stream, self._position = open_stream(), 0
        self._head, self._tail, self._size_bytes = b"", b"", 0
        self._measure(most_bytes)

    @property
    def size_bytes(self) -> int:
        """Length of what is inside."""
        return self._size_bytes

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return exactly ``size_bytes`` from ``offset_bytes``, or fewer only at the end."""
        end = min(offset_bytes + size_bytes, self._size_bytes)
        if end <= offset_bytes:
            return b""
        if end <= len(self._head):
            return self._head[offset_bytes:end]
        tail_start = self._size_bytes - len(self._tail)
        if offset_bytes >= tail_start:
            return self._tail[offset_bytes - tail_start : end - tail_start]
        if offset_bytes < self._position:
            self._restart()
        while self._position < offset_bytes:
            self._take(min(_PIECE_BYTES, offset_bytes - self._position))
        parts = []
        while self._position < end:
            parts.append(self._take(min(_PIECE_BYTES, end - self._position)))
        return b"".join(parts)

    def _take(self, size_bytes: int) -> bytes:
        content = self._stream.read(size_bytes)
        if not content:
            raise ImageError("the compressed file changed while it was read", reason="SourceChanged", temporary=True)
        self._position += len(content)
        return content

    def _measure(self, most_bytes: int) -> None:
        head = bytearray()
        while content := self._stream.read(_PIECE_BYTES):
            self._position += len(content)
            if self._position > most_bytes:
                raise ImageError(
                    f"the file decompresses to more than {format_size(most_bytes)}",
                    reason="TooLarge",
                    hint="decompress it where there is room, and inspect what comes out",
                )
            head += content[: max(0, _HEAD_BYTES - len(head))]
            self._tail = (self._tail + content)[-_TAIL_BYTES:] if len(content) < _TAIL_BYTES else content[-_TAIL_BYTES:]
        self._head, self._size_bytes = bytes(head), self._position

    def _restart(self) -> None:
        self._passes += 1
        if self._passes > _MOST_PASSES:
            raise ImageError(
                "the tables of the image inside are too scattered to be read from a compressed file", hint="decompress it first"
            )
        self._stream, self._position = self._open_stream(), 0
