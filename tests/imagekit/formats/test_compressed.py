"""A stream that is read as if it could be read at any place."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError
from imagekit.formats.compressed import DecompressedReader, ReaderStream
from tests.support.images import BytesReader

CONTENT = bytes(range(256)) * 40_000  # longer than what is kept of head and tail


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(CONTENT) + 10), st.integers(0, 100_000)), max_size=6))
def test_any_place_reads_as_in_memory(places: list[tuple[int, int]]) -> None:
    reader = DecompressedReader(lambda: io.BytesIO(CONTENT))
    assert reader.size_bytes == len(CONTENT)
    for offset, size in places:
        assert reader.read_at(offset, size) == CONTENT[offset : offset + size]


def test_small_contents_and_trickling_streams() -> None:
    class Trickle:
        def __init__(self) -> None:
            self.left = 5000

        def read(self, size_bytes: int, /) -> bytes:
            taken = min(1, self.left, size_bytes)
            self.left -= taken
            return b"x" * taken

    reader = DecompressedReader(Trickle)
    assert (reader.size_bytes, reader.read_at(4990, 100)) == (5000, b"x" * 10)
    assert DecompressedReader(io.BytesIO).read_at(0, 10) == b""


def test_too_much_content_is_refused() -> None:
    with pytest.raises(ImageError, match="decompresses to more than") as caught:
        DecompressedReader(lambda: io.BytesIO(CONTENT), most_bytes=len(CONTENT) - 1)
    assert caught.value.reason == "TooLarge"
    assert DecompressedReader(lambda: io.BytesIO(CONTENT), most_bytes=len(CONTENT)).size_bytes == len(CONTENT)


def test_jumping_back_has_an_end() -> None:
    reader = DecompressedReader(lambda: io.BytesIO(CONTENT))

    def jump_about() -> None:
        for offset in (6_000_000, 5_000_000) * 50:
            reader.read_at(offset, 10)

    with pytest.raises(ImageError, match="too scattered"):
        jump_about()


def test_a_file_that_changes_meanwhile_is_an_error() -> None:
    streams = iter([CONTENT, CONTENT[:5_000_000]])
    reader = DecompressedReader(lambda: io.BytesIO(next(streams)))
    with pytest.raises(ImageError, match="changed while it was read"):
        reader.read_at(6_000_000, 10)


def test_a_reader_as_a_stream() -> None:
    stream = ReaderStream(BytesReader(b"abcdef"))
    assert [stream.read(4), stream.read(4), stream.read(4)] == [b"abcd", b"ef", b""]
