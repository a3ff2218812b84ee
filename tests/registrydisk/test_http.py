"""The HTTP session: redirects, secrets, time, sizes, and what failures are called."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from email.utils import formatdate

import pytest

from imagekit.base.errors import AccessError, ImagekitError, NetworkError, NotFoundError
from imagekit.base.units import MIB
from registrydisk.access import HttpLimits, RegistryAccess
from registrydisk.http import HttpRequest, HttpResponse, HttpSession, StallWatch
from registrydisk.http_failures import parse_retry_after
from registrydisk.origin import Origin
from tests.registrydisk.remote_access import patient, source
from tests.support.fake_clock import FakeClock
from tests.support.fault_registry import fault_registry
from tests.support.fault_server import FaultServer, body, drop_after, fault_server, redirect, silent, stall_after, status

SECRETS = {"Authorization": "Basic Y2FuYXJ5", "X-Api-Key": "canary"}


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as running:
        running.put_file("/file", b"content")
        yield running


def get(server: FaultServer, path: str = "/file", *, access: RegistryAccess | None = None) -> tuple[int, bytes]:
    origin = Origin.of(server.origin)
    with HttpSession(access=access or patient(), named=origin) as session:
        response = session.send(HttpRequest(method="GET", url=f"{server.origin}{path}", secrets=SECRETS))
        return response.status, response.read_all(most_bytes=MIB)


@pytest.mark.network
def test_nothing_is_decoded_and_nothing_is_remembered(server: FaultServer) -> None:
    server.file_headers = {"Content-Encoding": "gzip", "Set-Cookie": "tracked=yes"}
    with HttpSession(access=patient(), named=Origin.of(server.origin)) as session:
        for _ in range(2):
            response = session.send(HttpRequest(method="GET", url=f"{server.origin}/file"))
            assert response.read_all(most_bytes=MIB) == b"content"
    assert [request.headers["accept-encoding"] for request in server.seen()] == ["identity", "identity"]
    assert all("cookie" not in request.headers for request in server.seen())


@pytest.mark.network
def test_a_connection_is_used_again(server: FaultServer) -> None:
    with HttpSession(access=patient(), named=Origin.of(server.origin)) as session:
        for _ in range(3):
            session.send(HttpRequest(method="GET", url=f"{server.origin}/file")).read_all(most_bytes=MIB)
    assert len(server.connections) == 1


@pytest.mark.network
def test_a_redirect_at_home_keeps_the_secrets(server: FaultServer) -> None:
    server.script("GET /file", redirect("/other"))
    server.put_file("/other", b"moved")
    assert get(server) == (200, b"moved")
    assert all(request.headers["x-api-key"] == "canary" for request in server.seen())


@pytest.mark.network
def test_f15_secrets_never_leave_their_origin_and_do_not_come_back(server: FaultServer) -> None:
    with fault_server() as other:
        other.always("GET /away", redirect(f"{server.origin}/back"))
        server.always("GET /file", redirect(f"{other.origin}/away"))
        server.put_file("/back", b"back")
        assert get(server) == (200, b"back")
        for request in (*other.seen(), *server.seen("/back")):
            assert not {"authorization", "x-api-key"} & set(request.headers)


@pytest.mark.network
def test_f16_a_redirect_loop_ends_after_five(server: FaultServer) -> None:
    server.always("GET /file", redirect("/file"))
    with pytest.raises(AccessError) as caught:
        get(server)
    assert caught.value.reason == "TooManyRedirects"
    assert len(server.seen()) == 6


@pytest.mark.network
@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://example.com/", "http://[", "gopher:x"])
def test_a_redirect_to_something_else_is_refused(server: FaultServer, location: str) -> None:
    server.always("GET /file", redirect(location))
    with pytest.raises(AccessError) as caught:
        get(server)
    assert caught.value.reason == "RedirectRefused"


@pytest.mark.network
def test_a_server_outside_cannot_redirect_into_this_machine(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registrydisk.privacy._resolve", lambda host: ["93.184.216.34"])
    named = Origin("https", "registry.example.com", 443)
    with HttpSession(access=patient(), named=named) as session, pytest.raises(AccessError) as caught:
        session.send(HttpRequest(method="GET", url=f"{server.origin}/file"))
    assert caught.value.reason == "RedirectRefused"
    assert server.seen() == []


@pytest.mark.network
def test_a_short_body_that_nobody_wants_does_not_cost_a_connection(server: FaultServer) -> None:
    server.script("GET /file", redirect("/other"))
    server.put_file("/other", b"moved")
    get(server)
    assert len(server.connections) == 1


@pytest.mark.network
@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (401, AccessError, "Unauthorized"),
        (403, AccessError, "Forbidden"),
        (404, NotFoundError, "NotFound"),
        (418, ImagekitError, "RequestRefused"),
        (429, NetworkError, "RateLimited"),
        (500, NetworkError, "UpstreamUnavailable"),
        (503, NetworkError, "UpstreamUnavailable"),
    ],
)
def test_each_status_has_its_error(server: FaultServer, code: int, kind: type[ImagekitError], reason: str) -> None:
    server.always("GET ", status(code, body=b"\xff" * 3 * MIB))
    with HttpSession(access=patient(), named=Origin.of(server.origin)) as session:
        error = session.send(HttpRequest(method="GET", url=f"{server.origin}/file?token=secret")).refusal(clock=FakeClock())
    assert type(error) is kind
    assert error.reason == reason
    assert "/file" in error.message
    assert "secret" not in error.message


@pytest.mark.network
def test_f19_a_rate_limit_is_waited_out_as_told() -> None:
    clock = FakeClock()
    with fault_registry() as registry:
        registry.put_image("team/disk", "v1", b"layer")
        registry.script(
            "GET .*/manifests/",
            status(429, Retry_After="7"),
            status(429, Retry_After=formatdate(clock.now() + 100, usegmt=True)),
            status(429, Retry_After="99999999999"),
            status(429, Retry_After="soon"),
        )
        with closing(source(registry, clock=clock)) as image:
            image.read_manifest()
    assert clock.sleeps[0] == 7
    assert 80 <= clock.sleeps[1] <= 100  # less the 7 s that passed
    assert clock.sleeps[2] == 300
    assert clock.sleeps[3] < 30


@pytest.mark.network
def test_f19_a_rate_limit_for_ever_ends() -> None:
    clock = FakeClock()
    with fault_registry() as registry:
        registry.always("GET .*/manifests/", status(429, Retry_After="60"))
        with closing(source(registry, clock=clock)) as image, pytest.raises(NetworkError) as caught:
            image.read_manifest()
    assert caught.value.reason == "RateLimited"
    assert caught.value.retry_after_seconds == 60
    assert len(clock.sleeps) == 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("5", 5.0),
        ("-5", None),
        ("1e9", None),
        ("9" * 400, None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("\0", None),
    ],
)
def test_retry_after_is_understood_or_ignored(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, now=1_000_000.0) == seconds


@pytest.mark.network
def test_f21_a_silent_server_is_called_stalled(server: FaultServer) -> None:
    server.always("GET ", silent())
    with pytest.raises(NetworkError) as caught:
        get(server, access=patient(stall_seconds=0.2))
    assert caught.value.reason == "Stalled"


@pytest.mark.network
def test_f21_a_body_that_stops_is_called_stalled(server: FaultServer) -> None:
    server.always("GET ", stall_after(3))
    with pytest.raises(NetworkError) as caught:
        get(server, access=patient(stall_seconds=0.2))
    assert caught.value.reason == "Stalled"


@pytest.mark.network
def test_f21_a_head_that_trickles_is_cut_off() -> None:
    """Each byte comes in time, so that no time limit of a single system call is ever met."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        access = patient(stall_seconds=0.5)
        with (
            _trickling(listener),
            HttpSession(access=access, named=Origin.of(origin)) as session,
            pytest.raises(NetworkError) as caught,
        ):
            session.send(HttpRequest(method="GET", url=f"{origin}/"))
    assert caught.value.reason == "Stalled"


@pytest.mark.network
def test_f21_a_handshake_that_trickles_is_cut_off() -> None:
    record = b"\x16\x03\x03\x3f\xff" + bytes(1000)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"https://127.0.0.1:{listener.getsockname()[1]}"
        access = replace(patient(), limits=HttpLimits(connect_seconds=0.5))
        with _trickling(listener, record), HttpSession(access=access, named=Origin.of(origin)) as session:
            request = HttpRequest(method="GET", url=f"{origin}/")
            with pytest.raises(NetworkError) as caught:
                session.send(request)
    assert caught.value.reason == "Stalled"


def test_f21_a_trickling_body_is_called_stalled_and_a_slow_reader_is_not() -> None:
    clock = FakeClock()
    access = patient(clock=clock, stall_seconds=60)

    def trickle() -> bytes:
        clock.advance(1)
        return b"x"

    watch = StallWatch(access.limits, clock)
    with pytest.raises(NetworkError) as caught:
        list(iter(lambda: watch.read(trickle, what="a test"), b""))
    assert caught.value.reason == "Stalled"
    patiently = StallWatch(access.limits, clock)
    for _ in range(100):
        clock.advance(1000)
        patiently.read(lambda: b"x", what="a test")


@pytest.mark.network
@pytest.mark.parametrize("size_bytes", [0, 3])
def test_a_broken_body_is_called_so(server: FaultServer, size_bytes: int) -> None:
    server.always("GET ", drop_after(size_bytes))
    with pytest.raises(NetworkError) as caught:
        get(server)
    assert caught.value.reason == "ConnectionReset"


@pytest.mark.network
def test_an_answer_that_is_too_large_is_cut_off(server: FaultServer) -> None:
    server.always("GET ", body(bytes(2 * MIB)))
    with pytest.raises(ImagekitError) as caught:
        get(server)
    assert caught.value.reason == "AnswerTooLarge"


@pytest.mark.network
def test_nobody_at_home_is_told_with_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        host = f"127.0.0.1:{closed.getsockname()[1]}"
    with HttpSession(access=patient(), named=Origin.of(f"http://{host}")) as session, pytest.raises(NetworkError) as caught:
        session.send(HttpRequest(method="GET", url=f"http://{host}/"))
    assert caught.value.message == f"{host} refuses connections"
    assert caught.value.temporary


@pytest.mark.network
def test_a_proxy_is_used_and_gets_no_secret_of_an_https_request(server: FaultServer) -> None:
    environment = {"HTTPS_PROXY": server.origin, "HTTP_PROXY": server.origin}
    origin = Origin("https", "registry.example.com", 443)
    with HttpSession(access=patient(environment=environment), named=origin) as session:
        with pytest.raises(NetworkError):
            session.send(HttpRequest(method="GET", url="https://registry.example.com/v2/", secrets=SECRETS))
        plain: HttpResponse = session.send(HttpRequest(method="GET", url="http://registry.example.com/v2/"))
        plain.close()
    assert [(request.method, request.path) for request in server.seen()] == [
        ("CONNECT", "registry.example.com:443"),
        ("GET", "http://registry.example.com/v2/"),
    ]
    assert "x-api-key" not in server.seen()[0].headers


@contextmanager
def _trickling(listener: socket.socket, head: bytes = b"H" * 1000) -> Iterator[None]:
    """Be a peer that sends a byte of ``head`` every 50 ms."""
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            for value in head:
                if ended.wait(0.05):
                    return
                connection.sendall(bytes([value]))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
