"""An HTTP origin in this process that fails as it is told, and records every request with its headers.

with fault_server() as server:
    server.put_file("/disk.img", content)
    server.script("GET /disk.img", drop_after(1000), status(503))   # the first two such requests; later ones succeed
    ...
    assert server.seen("GET /disk.img")[0].headers["range"] == "bytes=0-"
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PIECE_BYTES = 64 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One request as it arrived; header names are in lower case, the body is its length and its beginning."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    body_bytes: int


@dataclass(slots=True, kw_only=True)
class Answer:
    """What is about to be sent; faults change it.

    Attributes:
        most_bytes: The connection is closed after so many body bytes.
        is_reset: It is closed with RST instead of FIN.
        is_held: It is held open instead, until the server ends.
        piece_bytes: The body's size of one send; a hook runs before each.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    has_length: bool = True
    takes_ranges: bool = True
    most_bytes: int | None = None
    is_reset: bool = False
    is_held: bool = False
    holds_head: bool = False


Fault = Callable[[Answer], None]
Logic = Callable[[Recorded], Answer]


def status(code: int, *, body: bytes = b"", **headers: str) -> Fault:
    """Answer with ``code``; ``Retry_After="3"`` becomes the header Retry-After."""

    def apply(answer: Answer) -> None:
        answer.status, answer.body = code, body
        answer.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    return apply


def redirect(location: str, code: int = 307) -> Fault:
    """Send the client elsewhere."""
    return status(code, Location=location)


def drop_after(size_bytes: int) -> Fault:
    """Close the connection after so many bytes of the body."""
    return _changed(most_bytes=size_bytes)


def reset_after(size_bytes: int) -> Fault:
    """Reset the connection after so many bytes of the body."""
    return _changed(most_bytes=size_bytes, is_reset=True)


def stall_after(size_bytes: int) -> Fault:
    """Send so many bytes of the body and then nothing, with the connection open."""
    return _changed(most_bytes=size_bytes, is_held=True)


def silent() -> Fault:
    """Take the request and say nothing."""
    return _changed(holds_head=True)


def ignore_range() -> Fault:
    """Answer 200 with everything, whatever range was asked for."""
    return _changed(takes_ranges=False)


def no_length() -> Fault:
    """Send the body in chunks, without a length."""
    return _changed(has_length=False)


def flip(offset_bytes: int) -> Fault:
    """Change one bit of the body."""

    def apply(answer: Answer) -> None:
        body = bytearray(answer.body)
        body[offset_bytes] ^= 1
        answer.body = bytes(body)

    return apply


def header(**headers: str) -> Fault:
    """Replace headers: ``Content_Range="bytes 0-9/10"``."""

    def apply(answer: Answer) -> None:
        answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})

    return apply


def body(content: bytes) -> Fault:
    """Send another body."""
    return _changed(body=content)


def none(_answer: Answer) -> None:
    """Change nothing: a placeholder in a script."""


def together(*faults: Fault) -> Fault:
    """Apply several faults to one answer."""

    def apply(answer: Answer) -> None:
        for fault in faults:
            fault(answer)

    return apply


def _changed(**changes: object) -> Fault:
    def apply(answer: Answer) -> None:
        for name, value in changes.items():
            setattr(answer, name, value)

    return apply


class FaultServer:
    """The server's state: files, scripts and what was recorded."""

    def __init__(self, logic: Logic | None = None) -> None:
        self.requests: list[Recorded] = []
        self.files: dict[str, bytes] = {}
        self.file_headers: dict[str, str] = {}
        self.origin = ""
        self.host = ""
        self.sent_bytes = 0
        self.connections: list[socket.socket] = []
        self.released = threading.Event()
        self._logic = logic or self._serve_file
        self._scripts: list[tuple[re.Pattern[str], list[Fault], bool]] = []
        self._lock = threading.Lock()

    def put_file(self, path: str, content: bytes) -> None:
        """Serve ``content`` at ``path``."""
        self.files[path] = content

    def script(self, pattern: str, *faults: Fault) -> None:
        """Let the next requests that match ``METHOD /path`` (a regular expression) meet these faults, one each."""
        self._scripts.append((re.compile(pattern), list(faults), False))

    def always(self, pattern: str, fault: Fault) -> None:
        """Let every request that matches meet ``fault``."""
        self._scripts.append((re.compile(pattern), [fault], True))

    def seen(self, pattern: str = "") -> list[Recorded]:
        """Return the requests so far that match ``METHOD /path``."""
        with self._lock:
            return [request for request in self.requests if re.search(pattern, f"{request.method} {request.path}")]

    def answer(self, request: Recorded) -> Answer:
        """Return what to send, faults applied."""
        with self._lock:
            self.requests.append(request)
            answer = self._logic(request)
            for pattern, faults, is_lasting in self._scripts:
                if faults and pattern.search(f"{request.method} {request.path}"):
                    (faults[0] if is_lasting else faults.pop(0))(answer)
                    break
        _apply_range(answer, request.headers.get("range", ""))
        return answer

    def _serve_file(self, request: Recorded) -> Answer:
        content = self.files.get(request.path.partition("?")[0])
        if content is None:
            return Answer(status=404)
        tag = hashlib.sha256(content).hexdigest()[:16]
        return Answer(body=content, headers={"ETag": f'"{tag}"', **self.file_headers})


def _apply_range(answer: Answer, wanted: str) -> None:
    match = _RANGE.fullmatch(wanted)
    if match is None or answer.status != 200 or not answer.takes_ranges:
        return
    first, total = int(match[1]), len(answer.body)
    last = min(int(match[2] or total - 1), total - 1)
    if first >= total:
        answer.status, answer.body = 416, b""
        answer.headers["Content-Range"] = f"bytes */{total}"
        return
    answer.status, answer.body = 206, answer.body[first : last + 1]
    answer.headers.setdefault("Content-Range", f"bytes {first}-{last}/{total}")


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FaultServer

    def setup(self) -> None:
        super().setup()
        self.state.connections.append(self.connection)

    def _serve(self) -> None:
        content, size_bytes = self._read_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Recorded(method=self.command, path=self.path, headers=headers, body=content, body_bytes=size_bytes)
        self._send(self.state.answer(request))

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Serve every method alike."""
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _read_body(self) -> tuple[bytes, int]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            content = bytearray()
            while size_bytes := int(self.rfile.readline().strip() or b"0", 16):
                content += self.rfile.read(size_bytes)
                self.rfile.readline()
            self.rfile.readline()
            return bytes(content), len(content)
        whole = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return whole, len(whole)

    def _send(self, answer: Answer) -> None:
        if answer.holds_head:
            self.state.released.wait()
            self.close_connection = True
            return
        self.send_response(answer.status)
        headers = dict(answer.headers)
        if answer.has_length:
            headers.setdefault("Content-Length", str(len(answer.body)))
        else:
            headers["Transfer-Encoding"] = "chunked"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(answer)

    def _send_body(self, answer: Answer) -> None:
        content = answer.body if answer.most_bytes is None else answer.body[: answer.most_bytes]
        for start in range(0, len(content), _PIECE_BYTES):
            piece = content[start : start + _PIECE_BYTES]
            self.wfile.write(piece if answer.has_length else b"%x\r\n%b\r\n" % (len(piece), piece))
            self.state.sent_bytes += len(piece)
        if answer.most_bytes is None:
            if not answer.has_length:
                self.wfile.write(b"0\r\n\r\n")
            return
        self.close_connection = True
        if answer.is_held:
            self.state.released.wait()
        elif answer.is_reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *arguments: object) -> None:
        """Stay silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what the tests are about."""


@contextlib.contextmanager
def fault_server(
    logic: Logic | None = None, *, state: FaultServer | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[FaultServer]:
    """Run a server on loopback while the context lasts; with ``tls`` it speaks https."""
    state = state or FaultServer(logic)
    exchange = type("_BoundExchange", (_Exchange,), {"state": state})
    server = _Server(("127.0.0.1", 0), exchange)
    if tls is not None:
        # The handshake belongs into the connection's thread: a client that refuses it must not end the others'.
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state.host = f"127.0.0.1:{server.server_address[1]}"
    state.origin = f"{'https' if tls is not None else 'http'}://{state.host}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="fault server")
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
        for connection in state.connections:
            connection.close()
