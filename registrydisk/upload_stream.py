"""A request body that is pushed by one thread and sent by another, through a queue of a few pieces."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from imagekit.base.errors import ImagekitError, NetworkError
from registrydisk.http import HttpResponse

_QUEUED_PIECES = 4
_POLL_SECONDS = 0.5
_STOP_TRIES = 10


class _StoppedError(Exception):
    """The pushing side gave up; ends the sending side's request."""


class StreamedBody:
    """Runs ``send_request(body)`` in a thread of its own, with a body that ``put`` fills.

    At most a few pieces wait in between; ``put`` blocks then. Whatever the request fails with is raised by the next
    ``put`` or by ``finish``.
    """

    def __init__(self, send_request: Callable[[Iterator[bytes]], HttpResponse]) -> None:
        self._send_request = send_request
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_QUEUED_PIECES)
        self._response: HttpResponse | None = None
        self._error: BaseException | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    def put(self, piece: bytes) -> None:
        """Queue bytes for sending.

        Raises:
            ImagekitError: The request ended before its body did.
        """
        self._put(piece)

    def finish(self) -> HttpResponse:
        """End the body and return the answer."""
        self._put(None)
        self._thread.join()
        if self._response is None:
            raise self._failure()
        return self._response

    def stop(self) -> None:
        """End the request without an answer; safe to call twice. A send that hangs is left to its own time limit."""
        self._is_stopped = True
        for _ in range(_STOP_TRIES):
            if not self._thread.is_alive():
                break
            try:
                self._pieces.put_nowait(None)
            except queue.Full:
                self._drain()
            self._thread.join(_POLL_SECONDS)
        if self._response is not None:
            self._response.close()

    def _drain(self) -> None:
        try:
            while True:
                self._pieces.get_nowait()
        except queue.Empty:
            return

    def _put(self, piece: bytes | None) -> None:
        while self._thread.is_alive():
            try:
                self._pieces.put(piece, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return
        raise self._failure()

    def _failure(self) -> ImagekitError:
        if isinstance(self._error, ImagekitError):
            return self._error
        if self._error is not None:
            raise self._error
        if self._response is not None:
            self._response.close()
        return NetworkError("the registry answered before it had the whole upload", reason="ConnectionReset")

    def _run(self) -> None:
        try:
            self._response = self._send_request(self._body())
        except _StoppedError:
            return
        except BaseException as error:  # handed to the thread that pushes
            self._error = error

    def _body(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) is not None:
            yield piece
        if self._is_stopped:
            raise _StoppedError
