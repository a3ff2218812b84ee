"""Files on web servers, read in order and at any place."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from imagekit.base.errors import AccessError, NetworkError, NotFoundError, UsageError, VerificationError
from imagekit.base.units import MIB
from registrydisk.http_file import HttpFile, open_http, split_credential
from tests.registrydisk.remote_access import CANARY, patient
from tests.support.fault_registry import PASSWORD, USER
from tests.support.fault_server import (
    Fault,
    FaultServer,
    drop_after,
    fault_server,
    header,
    ignore_range,
    no_length,
    redirect,
    stall_after,
    status,
    together,
)

CONTENT = os.urandom(3 * MIB + 11)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as running:
        running.put_file("/disk.img", CONTENT)
        yield running


def read(file: HttpFile, offset_bytes: int = 0) -> bytes:
    stream = file.open(offset_bytes)
    content = b"".join(iter(lambda: stream.read(MIB), b""))
    stream.close()
    return content


@pytest.mark.network
def test_one_request_tells_everything_and_is_read_from(server: FaultServer) -> None:
    with open_http(f"{server.origin}/disk.img", access=patient()) as file:
        assert (file.size_bytes, file.supports_range) == (len(CONTENT), True)
        assert file.etag.startswith('"')
        assert read(file) == CONTENT
        assert len(server.seen()) == 1
        assert read(file, 1000) == CONTENT[1000:]
    assert server.seen()[1].headers["range"] == f"bytes=1000-{len(CONTENT) - 1}", "some servers refuse open ranges"
    assert all(request.method == "GET" for request in server.seen()), "an address may be signed for one method only"


@pytest.mark.network
@pytest.mark.parametrize(
    ("fault", "supports_range", "size_bytes"),
    [
        (ignore_range(), False, len(CONTENT)),
        (together(ignore_range(), no_length()), False, None),
        (header(Content_Range="bytes 5-9/10"), False, len(CONTENT)),
        (header(Content_Range="nonsense"), False, len(CONTENT)),
        (header(Content_Range=f"bytes 0-{len(CONTENT) - 1}/*"), True, None),
        (status(416), False, len(CONTENT)),
    ],
    ids=["ignored", "ignored-no-length", "wrong", "nonsense", "no-total", "open-range-refused"],
)
def test_f14_ranges_are_probed_by_asking(server: FaultServer, fault: Fault, supports_range: bool, size_bytes: int | None) -> None:
    server.script("GET ", fault)
    with open_http(f"{server.origin}/disk.img", access=patient()) as file:
        assert (file.supports_range, file.known_size_bytes) == (supports_range, size_bytes)
        assert read(file) == CONTENT
        if size_bytes is None:
            with pytest.raises(NetworkError):
                _ = file.size_bytes


@pytest.mark.network
def test_an_empty_file_is_a_file(server: FaultServer) -> None:
    server.put_file("/empty", b"")
    with open_http(f"{server.origin}/empty", access=patient()) as file:
        assert file.size_bytes == 0
        assert read(file) == b""


@pytest.mark.network
@pytest.mark.parametrize("fault", [drop_after(MIB), stall_after(MIB)], ids=["broken", "stalled"])
def test_f13_f21_a_broken_or_stalled_body_goes_on(server: FaultServer, fault: Fault) -> None:
    server.script("GET ", fault)
    notes: list[str] = []
    with open_http(f"{server.origin}/disk.img", access=patient(stall_seconds=0.3), on_note=notes.append) as file:
        assert read(file) == CONTENT
    assert server.seen()[1].headers["range"] == f"bytes={MIB}-{len(CONTENT) - 1}"
    assert "if-range" in server.seen()[1].headers
    assert len(notes) == 1


@pytest.mark.network
def test_f14_a_body_without_ranges_is_skipped_to_its_place(server: FaultServer) -> None:
    server.always("GET ", ignore_range())
    server._scripts.insert(0, (server._scripts[0][0], [together(ignore_range(), drop_after(MIB))], False))
    with open_http(f"{server.origin}/disk.img", access=patient()) as file:
        assert read(file) == CONTENT
    assert "range" not in server.seen()[1].headers


@pytest.mark.network
def test_a_file_that_changes_meanwhile_is_found_out(server: FaultServer) -> None:
    server.script("GET ", drop_after(MIB))
    with open_http(f"{server.origin}/disk.img", access=patient()) as file:
        stream = file.open()
        stream.read(1000)
        server.put_file("/disk.img", CONTENT[::-1])
        with pytest.raises(VerificationError) as caught:
            list(iter(lambda: stream.read(MIB), b""))
        assert caught.value.reason == "SourceChanged"
        with pytest.raises(VerificationError):
            file.read_at(100, 100)
        stream.close()


@pytest.mark.network
def test_f14_a_file_without_a_version_must_begin_with_the_same_bytes(server: FaultServer) -> None:
    server.file_headers = {"ETag": 'W/"weak"'}
    server.script("GET ", together(ignore_range(), drop_after(MIB)), ignore_range())
    with open_http(f"{server.origin}/disk.img", access=patient()) as file:
        stream = file.open()
        stream.read(1000)
        server.put_file("/disk.img", CONTENT[::-1])
        with pytest.raises(VerificationError) as caught:
            list(iter(lambda: stream.read(MIB), b""))
        stream.close()
    assert caught.value.reason == "SourceChanged"


@pytest.mark.network
def test_the_time_of_change_is_a_version_when_there_is_no_etag(server: FaultServer) -> None:
    server.file_headers = {"ETag": "", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
    server.script("GET ", drop_after(MIB))
    with open_http(f"{server.origin}/disk.img", access=patient()) as file:
        assert file.etag == ""
        stream = file.open()
        stream.read(1000)
        server.file_headers = {"ETag": "", "Last-Modified": "Fri, 02 Jan 2026 00:00:00 GMT"}
        with pytest.raises(VerificationError):
            list(iter(lambda: stream.read(MIB), b""))
        stream.close()
    assert server.seen()[1].headers["if-range"] == "Thu, 01 Jan 2026 00:00:00 GMT"


@pytest.mark.network
def test_any_place_can_be_read_and_small_reads_are_gathered(server: FaultServer) -> None:
    chance = random.Random(1)
    with open_http(f"{server.origin}/disk.img", access=patient()) as file:
        for _ in range(30):
            start, size = chance.randrange(len(CONTENT)), chance.choice([1, 512, 70_000, 2 * MIB])
            assert file.read_at(start, size) == CONTENT[start : start + size]
        assert file.read_at(len(CONTENT), 10) == b""
        before = len(server.seen())
        assert b"".join(file.read_at(place, 512) for place in range(0, MIB, 512)) == CONTENT[:MIB]
        assert len(server.seen()) <= before + 2


@pytest.mark.network
@pytest.mark.parametrize(
    "fault", [status(503), drop_after(10), header(Content_Range="bytes 0-9/10")], ids=["503", "broken", "wrong"]
)
def test_reading_at_a_place_is_tried_again(server: FaultServer, fault: Fault) -> None:
    with open_http(f"{server.origin}/disk.img", access=patient()) as file:
        server.script("GET ", fault)
        assert file.read_at(MIB, 1000) == CONTENT[MIB : MIB + 1000]


@pytest.mark.network
def test_f15_credentials_and_headers_stay_at_their_origin(server: FaultServer) -> None:
    with fault_server() as storage:
        storage.put_file("/stored", CONTENT)
        server.always("GET ", redirect(f"{storage.origin}/stored"))
        url = server.origin.replace("//", f"//{USER}:{PASSWORD}@")
        with open_http(f"{url}/disk.img#part", access=patient(), headers={"X-Token": "canary"}) as file:
            assert read(file) == CONTENT
            assert PASSWORD not in file.what + file.url
        assert all({"authorization", "x-token"} <= set(request.headers) for request in server.seen())
        assert not any({"authorization", "x-token"} & set(request.headers) for request in storage.seen())


@pytest.mark.network
def test_what_cannot_be_had_is_called_by_name(server: FaultServer) -> None:
    with pytest.raises(NotFoundError):
        open_http(f"{server.origin}/nothing", access=patient())
    server.always("GET ", status(401))
    with pytest.raises(AccessError) as caught:
        open_http(f"{server.origin}/disk.img?key=secret", access=patient(credential=CANARY))
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("url", ["ftp://host/file", "disk.img", "http://", "http://host:port/", "https:///path"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_http(url, access=patient())
    assert caught.value.reason == "BadURL"


def test_a_password_in_an_address_is_taken_out() -> None:
    bare, credential = split_credential("https://me:p%40ss@host:8443/a?b=c#d")
    assert bare == "https://host:8443/a?b=c"
    assert credential is not None
    assert (credential.username, credential.password) == ("me", "p@ss")
