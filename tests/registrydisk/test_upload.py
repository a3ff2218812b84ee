"""Every form of sending a blob, and what happens when it breaks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from imagekit.base.errors import AccessError, ImagekitError, NetworkError, VerificationError
from imagekit.base.units import MIB
from registrydisk.digest import Digest
from registrydisk.remote import RemoteTarget
from tests.registrydisk.remote_access import CANARY, NotedProgress, target
from tests.support.fault_registry import FaultRegistry, fault_registry
from tests.support.fault_server import Fault, fault_server, header, redirect, status

pytestmark = pytest.mark.network
SMALL = os.urandom(MIB)
LONG = os.urandom(9 * MIB + 5)
VERY_LONG = os.urandom(20 * MIB)


@pytest.fixture
def faulty() -> Iterator[FaultRegistry]:
    with fault_registry() as running:
        yield running


def push(image: RemoteTarget, content: bytes, *, digest: Digest | None = None) -> None:
    writer = image.open_blob_writer()
    try:
        for start in range(0, len(content), MIB):
            writer.write(content[start : start + MIB])
        writer.commit(digest or Digest.of(content))
    finally:
        writer.abort()


def methods(registry: FaultRegistry) -> list[str]:
    return [request.method for request in registry.seen("blobs/uploads")]


def test_a_small_blob_is_one_post_and_one_put(faulty: FaultRegistry) -> None:
    with closing(target(faulty)) as image:
        push(image, SMALL)
    assert faulty.blobs[Digest.of(SMALL)] == SMALL
    assert methods(faulty) == ["POST", "PUT"]


def test_a_registry_that_is_down_is_asked_as_often_as_the_policy_says(faulty: FaultRegistry) -> None:
    faulty.always("POST ", status(503))
    with closing(target(faulty)) as image, pytest.raises(NetworkError):
        push(image, SMALL)
    assert methods(faulty) == ["POST"] * 6


def test_a_long_blob_is_one_streamed_patch(faulty: FaultRegistry) -> None:
    with closing(target(faulty)) as image:
        push(image, LONG)
    assert faulty.blobs[Digest.of(LONG)] == LONG
    assert methods(faulty) == ["POST", "PATCH", "PUT"]
    (patch,) = faulty.seen("PATCH")
    assert patch.headers["transfer-encoding"] == "chunked"
    assert "content-range" not in patch.headers


def test_what_is_written_may_be_changed_afterwards(faulty: FaultRegistry) -> None:
    buffer = bytearray(MIB)
    with closing(target(faulty)) as image:
        writer = image.open_blob_writer()
        for value in range(6):
            buffer[:] = bytes([value]) * MIB
            writer.write(memoryview(buffer))
        expected = b"".join(bytes([value]) * MIB for value in range(6))
        writer.commit(Digest.of(expected))
    assert faulty.blobs[Digest.of(expected)] == expected


@pytest.mark.parametrize("content", [LONG, VERY_LONG], ids=["all-kept", "longer-than-kept"])
def test_a_registry_that_wants_chunks_gets_chunks(faulty: FaultRegistry, content: bytes) -> None:
    faulty.most_patch_bytes = 4 * MIB
    faulty.chunk_minimum = MIB
    with closing(target(faulty)) as image:
        push(image, content)
    assert faulty.blobs[Digest.of(content)] == content
    assert all(patch.body_bytes <= 4 * MIB for patch in faulty.seen("PATCH"))
    assert faulty.seen("PATCH")[0].headers["content-range"] == f"0-{4 * MIB - 1}"


def test_a_refused_stream_is_sent_again_in_chunks_and_remembered(faulty: FaultRegistry) -> None:
    faulty.most_patch_bytes = 4 * MIB
    with closing(target(faulty)) as image:
        push(image, LONG)
        assert len(faulty.seen("PATCH")) == 1 + 3
        push(image, LONG[::-1])
        assert len(faulty.seen("PATCH")) == 1 + 3 + 3
    assert {Digest.of(LONG), Digest.of(LONG[::-1])} <= set(faulty.blobs)


def test_a_refused_stream_that_is_too_long_to_keep_succeeds_when_it_is_sent_again(faulty: FaultRegistry) -> None:
    faulty.most_patch_bytes = 4 * MIB
    with closing(target(faulty)) as image:
        with pytest.raises(NetworkError) as caught:
            push(image, VERY_LONG)
        assert caught.value.temporary
        push(image, VERY_LONG)
    assert faulty.blobs[Digest.of(VERY_LONG)] == VERY_LONG


@pytest.mark.parametrize("code", [500, 503])
def test_a_chunk_that_fails_goes_on_from_where_the_registry_stands(faulty: FaultRegistry, code: int) -> None:
    faulty.chunk_minimum = MIB
    faulty.script("PATCH ", lambda _: None, status(code))  # the chunk was taken, its answer is lost
    with closing(target(faulty)) as image:
        push(image, LONG)
    assert faulty.blobs[Digest.of(LONG)] == LONG
    assert methods(faulty) == ["POST", "PATCH", "PATCH", "GET", "PATCH", "PUT"]


def test_an_upload_whose_place_is_lost_ends(faulty: FaultRegistry) -> None:
    faulty.chunk_minimum = MIB
    faulty.script("PATCH ", lambda _: None, status(500))
    faulty.always("GET .*/uploads/", header(Range="0-5"))
    with closing(target(faulty)) as image, pytest.raises(NetworkError) as caught:
        push(image, LONG)
    assert not caught.value.temporary


def test_an_absurd_smallest_chunk_is_refused(faulty: FaultRegistry) -> None:
    faulty.chunk_minimum = 10**10
    with closing(target(faulty)) as image, pytest.raises(ImagekitError) as caught:
        push(image, LONG)
    assert caught.value.reason == "RequestRefused"


@pytest.mark.parametrize("fault", [status(500), status(502), status(429, Retry_After="2")])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_small_blob_is_sent_again_after_trouble(faulty: FaultRegistry, method: str, fault: Fault) -> None:
    faulty.script(f"{method} ", fault, fault)
    with closing(target(faulty)) as image:
        push(image, SMALL)
    assert faulty.blobs[Digest.of(SMALL)] == SMALL


def test_a_commit_whose_answer_was_lost_counts_when_the_blob_is_there(faulty: FaultRegistry) -> None:
    faulty.script("PUT ", status(502))
    with closing(target(faulty)) as image:
        push(image, LONG)
    assert faulty.blobs[Digest.of(LONG)] == LONG
    assert len(faulty.seen("PUT ")) == 1


def test_a_token_that_expires_in_the_middle_is_renewed(faulty: FaultRegistry) -> None:
    faulty.demand = "bearer"
    progress = NotedProgress()
    with closing(target(faulty, progress=progress, credential=CANARY)) as image:
        writer = image.open_blob_writer()
        for start in range(0, len(LONG), MIB):
            writer.write(LONG[start : start + MIB])
        faulty.valid_tokens.clear()
        writer.commit(Digest.of(LONG))
    assert faulty.blobs[Digest.of(LONG)] == LONG
    assert faulty.tokens_given >= 2


def test_other_bytes_than_promised_are_told_and_not_tried_again(faulty: FaultRegistry) -> None:
    for content in (SMALL, LONG):
        with closing(target(faulty)) as image, pytest.raises(VerificationError):
            push(image, content, digest=Digest.of(b"other"))
    assert len(faulty.seen("PUT ")) == 2


def test_a_registry_that_computed_another_digest_is_not_believed(faulty: FaultRegistry) -> None:
    faulty.always("PUT ", header(Docker_Content_Digest=str(Digest.of(b"other"))))
    with closing(target(faulty)) as image, pytest.raises(VerificationError):
        push(image, SMALL)


def test_an_aborted_upload_is_taken_back_and_leaves_no_thread(faulty: FaultRegistry) -> None:
    before = threading.active_count()
    with closing(target(faulty)) as image:
        for content in (SMALL, LONG):
            writer = image.open_blob_writer()
            writer.write(content)
            writer.abort()
            writer.abort()
        assert not [thread for thread in threading.enumerate() if thread.name == "upload"]
    assert faulty.uploads == {}
    assert before <= threading.active_count()


def test_f15_an_upload_location_elsewhere_gets_no_credentials(faulty: FaultRegistry) -> None:
    faulty.demand = "basic"
    with fault_server() as elsewhere, closing(target(faulty, credential=CANARY)) as image:
        elsewhere.always(".*", status(201))
        faulty.always("POST ", header(Location=f"{elsewhere.origin}/upload/1?state=x"))
        push(image, SMALL)
        (sent,) = elsewhere.seen("PUT ")
        assert "authorization" not in sent.headers
        assert sent.path == f"/upload/1?state=x&digest=sha256%3A{Digest.of(SMALL).encoded}"


def test_an_upload_is_never_redirected(faulty: FaultRegistry) -> None:
    with fault_server() as elsewhere, closing(target(faulty, credential=CANARY)) as image:
        faulty.always("PUT ", redirect(f"{elsewhere.origin}/upload"))
        with pytest.raises(ImagekitError):
            push(image, SMALL)
        assert elsewhere.seen() == []


def test_a_push_without_the_right_to_says_what_was_tried(faulty: FaultRegistry) -> None:
    faulty.demand = "bearer"
    for content in (SMALL, LONG):
        with closing(target(faulty)) as image, pytest.raises(AccessError) as caught:
            push(image, content)
        assert caught.value.reason == "Unauthorized"
        assert "registrydisk login" in caught.value.hint
    assert faulty.seen("PATCH") == []
