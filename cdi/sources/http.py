"""A disk on a web server: in one long answer, or at any place where the server has ranges and names its content.

Ranges alone are not enough to read at any place: without a strong entity tag (RFC 9110, section 8.8.3) nobody would
notice that the file was replaced between two requests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from cdi.sources.base import OnBytes, OpenedSource
from imagekit.base.progress import Progress
from imagekit.base.readers import ByteStream, CountedStream
from imagekit.base.units import KIB, MIB
from registrydisk.access import RegistryAccess
from registrydisk.http_file import HttpFile, open_http
from registrydisk.read_ahead import ReadAhead

_LARGE_BYTES = MIB
# On a connection of 100 Mbit/s and 20 ms this is what a new request costs.
_SKIPPED_BYTES = 256 * KIB
# A few small reads onwards are tables; a long answer would bring megabytes behind them that nobody asked for.
_SMALL_READS = 8


@contextlib.contextmanager
def open_http_source(url: str, *, access: RegistryAccess, progress: Progress, on_bytes: OnBytes) -> Iterator[OpenedSource]:
    """Open the image at ``url``; broken connections are resumed.

    Raises:
        NotFoundError: There is no such file.
        AccessError: The server refuses us, or is not trusted.
        NetworkError: It cannot be reached.
    """
    with open_http(url, access=access, on_note=progress.note) as file, contextlib.ExitStack() as stack:
        is_seekable = file.supports_range and file.known_size_bytes is not None and bool(file.etag)
        yield OpenedSource(
            name=file.what,
            open_stream=lambda: _read_ahead(file, stack, on_bytes=on_bytes),
            size_bytes=file.known_size_bytes,
            fetch_bytes=file.known_size_bytes,
            reader=stack.enter_context(contextlib.closing(ForwardReader(file, on_bytes=on_bytes))) if is_seekable else None,
            identity=f"{file.what} {file.etag} {file.known_size_bytes}" if is_seekable else "",
        )


class ForwardReader:
    """A web file at any place, through one long answer where it is asked for more or less in order.

    A request for each piece would wait for the network each time; decoders read tables first and then onwards.
    """

    def __init__(self, file: HttpFile, *, on_bytes: OnBytes) -> None:
        self._file = file
        self._on_bytes = on_bytes
        self._stack = contextlib.ExitStack()
        self._stream: ByteStream | None = None
        self._position = 0
        self._asked_end = 0
        self._onward_reads = 0

    @property
    def size_bytes(self) -> int:
        """Length of the file."""
        return self._file.size_bytes

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return exactly ``size_bytes`` from ``offset_bytes``, or fewer only at the end."""
        size_bytes = max(min(size_bytes, self.size_bytes - offset_bytes), 0)
        is_onwards = 0 <= offset_bytes - self._asked_end <= _SKIPPED_BYTES
        self._onward_reads = self._onward_reads + 1 if is_onwards else 0
        self._asked_end = offset_bytes + size_bytes
        if self._stream is not None and 0 <= offset_bytes - self._position <= _SKIPPED_BYTES:
            self._read(offset_bytes - self._position)
            return self._read(size_bytes)
        if size_bytes < _LARGE_BYTES and self._onward_reads < _SMALL_READS:
            content = self._file.read_at(offset_bytes, size_bytes)
            self._on_bytes(len(content))
            return content
        self.close()
        self._stream = _read_ahead(self._file, self._stack, on_bytes=self._on_bytes, offset_bytes=offset_bytes)
        self._position = offset_bytes
        return self._read(size_bytes)

    def close(self) -> None:
        """End the long answer."""
        self._stack.close()
        self._stream = None

    def _read(self, size_bytes: int) -> bytes:
        assert self._stream is not None
        parts: list[bytes] = []
        while size_bytes and (chunk := self._stream.read(size_bytes)):
            parts.append(chunk)
            size_bytes -= len(chunk)
            self._position += len(chunk)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_ahead(file: HttpFile, stack: contextlib.ExitStack, *, on_bytes: OnBytes, offset_bytes: int = 0) -> ByteStream:
    """Read in a thread, so that the network and the decoder do not wait for each other."""
    reader = file.open(offset_bytes)
    stack.callback(reader.close)
    return stack.enter_context(contextlib.closing(ReadAhead(CountedStream(reader, on_bytes), name="fetch disk")))
