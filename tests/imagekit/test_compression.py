"""Streams inside gzip, xz, zstd and bzip2: whole, several, cut, damaged, followed by something else, and bombs."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import random
import struct
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError, ImagekitError, VerificationError
from imagekit.base.readers import ByteStream
from imagekit.compression import PeekableStream, detect_compression, open_decompressed
from imagekit.image import Compression

CODECS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: gzip.compress,
    Compression.XZ: lzma.compress,
    Compression.BZIP2: bz2.compress,
    Compression.ZSTD: zstandard.ZstdCompressor(write_checksum=True).compress,
}
CONTENT = random.Random(7).randbytes(300_000) + bytes(700_000) + b"end"
every_codec = pytest.mark.parametrize("codec", CODECS)


class Trickle:
    """A stream that gives a few bytes at a time."""

    def __init__(self, content: bytes, *, step_bytes: int) -> None:
        self._stream = io.BytesIO(content)
        self._step_bytes = step_bytes

    def read(self, size_bytes: int, /) -> bytes:
        return self._stream.read(min(size_bytes, self._step_bytes))


def drain(stream: ByteStream, *, step_bytes: int = 70_000) -> bytes:
    content = bytearray()
    while part := stream.read(step_bytes):
        assert len(part) <= step_bytes
        content += part
    assert stream.read(step_bytes) == b""
    return bytes(content)


def decompress(packed: bytes, codec: Compression) -> bytes:
    return drain(open_decompressed(io.BytesIO(packed), codec))


@every_codec
def test_compression_is_known_by_its_magic_and_undone(codec: Compression) -> None:
    packed = CODECS[codec](CONTENT)
    assert detect_compression(packed[:10]) is codec
    assert decompress(packed, codec) == CONTENT


@every_codec
def test_empty_contents(codec: Compression) -> None:
    packed = CODECS[codec](b"")
    assert detect_compression(packed[:14]) is codec
    assert decompress(packed, codec) == b""


@every_codec
def test_several_members_are_one_stream(codec: Compression) -> None:
    pack = CODECS[codec]
    assert decompress(pack(CONTENT) + pack(b"") + pack(b"more"), codec) == CONTENT + b"more"


@every_codec
def test_how_the_bytes_arrive_does_not_matter(codec: Compression) -> None:
    packed = CODECS[codec](CONTENT[290_000:400_000]) * 2
    for step_bytes in (1, 3, 1000):
        stream = open_decompressed(Trickle(packed, step_bytes=step_bytes), codec)
        assert drain(stream, step_bytes=4096) == CONTENT[290_000:400_000] * 2


@every_codec
def test_an_early_end_is_an_error(codec: Compression) -> None:
    packed = CODECS[codec](CONTENT)
    for length in (0, 1, 5, 11, len(packed) // 2, len(packed) - 9, len(packed) - 1):
        with pytest.raises(VerificationError) as caught:
            decompress(packed[:length], codec)
        assert caught.value.reason == "TruncatedStream", length


@every_codec
def test_something_else_after_the_end_is_an_error(codec: Compression) -> None:
    packed = CODECS[codec](CONTENT)
    for garbage in (b"x", b"garbage", bytes(5) + b"garbage", packed[:3], b"\0" * 9 + b"x"):
        with pytest.raises(ImagekitError) as caught:
            decompress(packed + garbage, codec)
        assert caught.value.reason in ("TrailingGarbage", "TruncatedStream", "CorruptStream")


@pytest.mark.parametrize("codec", [Compression.GZIP, Compression.XZ])
def test_padding_with_zeros_is_no_garbage(codec: Compression) -> None:
    packed = CODECS[codec](b"one") + bytes(200_000) + CODECS[codec](b"two") + bytes(512)
    assert decompress(packed, codec) == b"onetwo"


@every_codec
def test_damage_is_an_error(codec: Compression) -> None:
    packed = bytearray(CODECS[codec](CONTENT))
    packed[1000] ^= 0x10
    with pytest.raises(VerificationError) as caught:
        decompress(bytes(packed), codec)
    assert caught.value.reason == "CorruptStream"
    assert caught.value.hint


def test_zstd_frames_of_every_shape() -> None:
    shapes = [
        zstandard.ZstdCompressor(write_content_size=size, write_checksum=checksum, level=level).compress(content)
        for size in (True, False)
        for checksum in (True, False)
        for level in (1, 19)
        for content in (b"", b"x", CONTENT[:70_000], bytes(400_000))
    ]
    expected = (b"" + b"x" + CONTENT[:70_000] + bytes(400_000)) * 8
    skippable = b"\x5a\x2a\x4d\x18" + struct.pack("<I", 5) + b"hello"
    packed = skippable + skippable.join(shapes) + skippable
    assert detect_compression(packed) is Compression.ZSTD
    assert decompress(packed, Compression.ZSTD) == expected
    with pytest.raises(VerificationError, match="ends early"):
        decompress(packed[:-1], Compression.ZSTD)


def test_a_window_that_takes_too_much_memory_is_refused() -> None:
    packed = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\xa0" + b"\x09\0\0x"  # a window of 1 GiB, one stored block of one byte
    with pytest.raises(VerificationError, match="damaged"):
        decompress(packed, Compression.ZSTD)


@every_codec
def test_a_bomb_gives_no_more_than_is_asked_for(codec: Compression) -> None:
    packed = CODECS[codec](bytes(50_000_000))
    stream = open_decompressed(io.BytesIO(packed), codec)
    taken = 0
    while part := stream.read(1000):
        assert len(part) <= 1000
        taken += len(part)
        if taken > 100_000:
            return
    pytest.fail("the stream ended too early")


@pytest.mark.parametrize(
    "head", [b"", b"\x1f\x8b", b"BZh0" + bytes(10), b"BZh9 is text", b"\xfd7zXY\0", b"\x28\xb5\x2f\xfe", b"\x60\x2a\x4d\x18"]
)
def test_other_beginnings_are_no_compression(head: bytes) -> None:
    assert detect_compression(head) is Compression.NONE


def test_an_uncompressed_stream_is_itself() -> None:
    stream = io.BytesIO(b"x")
    assert open_decompressed(stream, Compression.NONE) is stream


@settings(max_examples=60, deadline=None)
@given(
    codec=st.sampled_from(list(CODECS)),
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=4),
    cut=st.integers(0, 50),
)
def test_changed_bytes_never_raise_anything_of_their_own(codec: Compression, flips: list[tuple[int, int]], cut: int) -> None:
    packed = bytearray(CODECS[codec](CONTENT[299_000:310_000]))
    for place, mask in flips:
        packed[place % len(packed)] ^= mask
    with contextlib.suppress(ImageError, VerificationError):
        drain(open_decompressed(io.BytesIO(bytes(packed[: len(packed) - cut])), codec))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.lists(st.tuples(st.booleans(), st.integers(0, 90)), max_size=20), st.integers(1, 40))
def test_a_peek_takes_nothing(content: bytes, calls: list[tuple[bool, int]], step_bytes: int) -> None:
    stream, position = PeekableStream(Trickle(content, step_bytes=step_bytes)), 0
    for is_peek, size_bytes in calls:
        if is_peek:
            assert stream.peek(size_bytes) == content[position : position + size_bytes]
        else:
            part = stream.read(size_bytes)
            assert part == content[position : position + len(part)]
            assert part or size_bytes == 0 or position == len(content)
            position += len(part)
    assert drain(stream) == content[position:]
