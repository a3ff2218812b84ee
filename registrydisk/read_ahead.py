"""Reading ahead in a thread, so that fetching, inflating and decoding overlap."""

from __future__ import annotations

import contextlib
import queue
import threading

from imagekit.base.errors import ImagekitError
from imagekit.base.units import MIB
from imagekit.stream.base import ByteStream

_PIECE_BYTES = MIB
_MOST_PIECES = 6
_WAIT_SECONDS = 0.2
_JOIN_SECONDS = 2.0


class ReadAhead:
    """A ByteStream that a thread reads in advance, at most some MiB; what the thread failed with is raised to the reader.

    ``close`` ends the thread and must be called. Where streams stand on each other, ``stop`` all of them first: a thread
    that waits for the one beneath is woken by that.
    """

    def __init__(self, stream: ByteStream, *, name: str, piece_bytes: int = _PIECE_BYTES, most_pieces: int = _MOST_PIECES) -> None:
        self._stream = stream
        self._piece_bytes = piece_bytes
        self._pieces: queue.Queue[bytes | BaseException] = queue.Queue(most_pieces)
        self._is_closing = threading.Event()
        self._piece = b""
        self._start = 0
        self._ending: BaseException | None = None
        self._has_ended = False
        self._thread = threading.Thread(target=self._fill, name=name, daemon=True)
        self._thread.start()

    def read(self, size_bytes: int, /) -> bytes:
        """Return the next bytes; a whole piece is handed on without a copy."""
        if self._start == len(self._piece) and not self._next_piece():
            return b""
        if self._start == 0 and size_bytes >= len(self._piece):
            piece, self._piece = self._piece, b""
            return piece
        taken = self._piece[self._start : self._start + size_bytes]
        self._start += len(taken)
        return taken

    def stop(self) -> None:
        """Tell the thread, and whoever reads, to end."""
        self._is_closing.set()

    def close(self) -> None:
        """End the thread; safe to call twice. One that waits for the network is left to its time limit."""
        self.stop()
        self._thread.join(_JOIN_SECONDS)

    def _next_piece(self) -> bool:
        if self._ending is not None:
            raise self._ending
        if self._has_ended:
            return False
        piece = self._get()
        if isinstance(piece, BaseException):
            self._ending = piece
            raise piece
        self._piece, self._start = piece, 0
        self._has_ended = not piece
        return bool(piece)

    def _get(self) -> bytes | BaseException:
        while not self._is_closing.is_set():
            with contextlib.suppress(queue.Empty):
                return self._pieces.get(timeout=_WAIT_SECONDS)
        return ImagekitError("reading was stopped", reason="Interrupted")

    def _fill(self) -> None:
        try:
            while piece := self._stream.read(self._piece_bytes):
                if not self._put(piece):
                    return
            self._put(b"")
        except BaseException as error:  # whatever it is, it belongs to the reader
            self._put(error)

    def _put(self, piece: bytes | BaseException) -> bool:
        while not self._is_closing.is_set():
            try:
                self._pieces.put(piece, timeout=_WAIT_SECONDS)
            except queue.Full:
                continue
            return True
        return False
