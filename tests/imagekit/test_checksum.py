"""Checksums are read as publishers write them, and proven at the end of the bytes."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.base.errors import UsageError, VerificationError
from imagekit.checksum import Checksum, ChecksumStream, parse_checksum

ALGORITHMS = ("md5", "sha1", "sha256", "sha512")


def digest_of(algorithm: str, content: bytes) -> str:
    return hashlib.new(algorithm, content).hexdigest()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checksum_is_read_with_and_without_its_name(algorithm: str) -> None:
    value = digest_of(algorithm, b"content")
    expected = Checksum(algorithm=algorithm, hexdigest=value)
    assert parse_checksum(f"{algorithm}:{value}") == expected
    assert parse_checksum(f" {algorithm.upper()}:{value.upper()}\n") == expected
    assert parse_checksum(value) == expected
    assert parse_checksum(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        ":" + "a" * 64,
        "a" * 63,
        "g" * 64,
        "sha256:" + "a" * 40,
        "crc32:12345678",
        "sha256:sha256:" + "a" * 64,
        "sha256 " + "a" * 64,
        "٣" * 64,
        "0x" + "a" * 62,
    ],
)
def test_what_is_no_checksum_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_checksum(text)


@given(st.binary(max_size=3000), st.sampled_from(ALGORITHMS), st.integers(1, 700))
def test_the_bytes_pass_unchanged_and_are_proven_at_the_end(content: bytes, algorithm: str, size: int) -> None:
    stream = ChecksumStream(io.BytesIO(content), parse_checksum(digest_of(algorithm, content)))
    parts = []
    while part := stream.read(size):
        assert not stream.is_proven
        parts.append(part)
    assert b"".join(parts) == content
    assert stream.is_proven
    assert stream.read(size) == b"", "the end can be read again"


@given(st.binary(min_size=1, max_size=200), st.data())
def test_any_changed_bit_is_found_at_the_end(content: bytes, data: st.DataObject) -> None:
    place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    changed = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
    stream = ChecksumStream(io.BytesIO(changed), parse_checksum(digest_of("sha256", content)))
    assert stream.read(1000) == changed
    with pytest.raises(VerificationError) as caught:
        stream.read(1000)
    assert caught.value.reason == "ChecksumMismatch"
    assert caught.value.exit_code == 5
    assert digest_of("sha256", changed) in caught.value.message
    assert not stream.is_proven


def test_a_cut_stream_is_not_proven() -> None:
    stream = ChecksumStream(io.BytesIO(b"conte"), parse_checksum(digest_of("sha256", b"content")))
    stream.read(100)
    with pytest.raises(VerificationError, match="5 bytes"):
        stream.read(100)


def test_reading_nothing_is_not_the_end() -> None:
    stream = ChecksumStream(io.BytesIO(b"content"), parse_checksum(digest_of("md5", b"content")))
    assert stream.read(0) == b""
    assert not stream.is_proven
