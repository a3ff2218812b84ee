"""Digests parse exactly, and a VerifyingStream trusts nothing before its end."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError, VerificationError
from registrydisk.digest import Digest, VerifyingStream

HEX = "0123456789abcdef"


@given(
    st.sampled_from([("sha256", 64), ("sha512", 128)]).flatmap(
        lambda kind: st.tuples(st.just(kind[0]), st.text(HEX, min_size=kind[1], max_size=kind[1]))
    )
)
@settings(max_examples=50)
def test_what_is_printed_is_parsed(parts: tuple[str, str]) -> None:
    digest = Digest(*parts)
    assert Digest.parse(str(digest)) == digest


@given(st.text(max_size=80))
@settings(max_examples=200)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match="is not a digest") as caught:
        Digest.parse(text)
    assert caught.value.reason == "BadManifest"


@pytest.mark.parametrize(
    "text",
    [
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 64 + "\n",
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "sha256:../../../../etc/passwd",
        "sha256:" + "٠" * 64,
        "sha256" + "a" * 64,
    ],
)
def test_near_misses_are_refused(text: str) -> None:
    with pytest.raises(ImageError):
        Digest.parse(text)


@given(st.binary(max_size=500), st.sampled_from(["sha256", "sha512"]), st.integers(1, 100))
@settings(max_examples=50)
def test_right_bytes_pass(content: bytes, algorithm: str, piece_bytes: int) -> None:
    digest = Digest.of(content, algorithm=algorithm)
    assert digest.encoded == hashlib.new(algorithm, content).hexdigest()
    stream = VerifyingStream(io.BytesIO(content), digest=digest, size_bytes=len(content), what="it")
    seen = b""
    while piece := stream.read(piece_bytes):
        assert not stream.is_verified
        seen += piece
    assert seen == content
    assert stream.is_verified


@given(st.binary(min_size=1, max_size=100), st.data())
@settings(max_examples=50)
def test_one_changed_bit_is_seen(content: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    stream = VerifyingStream(io.BytesIO(bytes(changed)), digest=Digest.of(content), size_bytes=None, what="it")
    with pytest.raises(VerificationError, match="is not what its digest says") as caught:
        stream.drain()
    assert caught.value.reason == "DigestMismatch"
    assert not stream.is_verified


def test_a_short_stream_may_come_whole_later() -> None:
    stream = VerifyingStream(io.BytesIO(b"abc"), digest=Digest.of(b"abcd"), size_bytes=4, what="it")
    with pytest.raises(VerificationError, match="after 3 of 4 bytes") as caught:
        stream.drain()
    assert (caught.value.reason, caught.value.temporary) == ("TruncatedStream", True)


def test_a_long_stream_is_stopped_at_once() -> None:
    stream = VerifyingStream(io.BytesIO(b"a" * 10), digest=Digest.of(b"a" * 4), size_bytes=4, what="it")
    with pytest.raises(VerificationError, match="longer than the 4 bytes") as caught:
        stream.read(5)
    assert caught.value.reason == "SizeMismatch"
