"""Reading ahead: the same bytes, the same errors, and no thread left."""

from __future__ import annotations

import contextlib
import io
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import NetworkError
from registrydisk.read_ahead import ReadAhead


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=500), piece_bytes=st.integers(1, 60), read_bytes=st.integers(1, 60))
def test_the_bytes_are_the_same(content: bytes, piece_bytes: int, read_bytes: int) -> None:
    with contextlib.closing(ReadAhead(io.BytesIO(content), name="test", piece_bytes=piece_bytes, most_pieces=2)) as stream:
        pieces = list(iter(lambda: stream.read(read_bytes), b""))
        assert stream.read(1) == b""
    assert b"".join(pieces) == content
    assert all(1 <= len(piece) <= read_bytes for piece in pieces)


class _Failing:
    def read(self, _size_bytes: int, /) -> bytes:
        raise NetworkError("the connection broke")


def test_the_threads_error_is_the_readers_each_time() -> None:
    with contextlib.closing(ReadAhead(_Failing(), name="test")) as stream:
        for _ in range(2):
            with pytest.raises(NetworkError, match="the connection broke"):
                stream.read(1)


def test_closing_ends_a_thread_whose_queue_is_full() -> None:
    before = threading.active_count()
    stream = ReadAhead(io.BytesIO(bytes(1000)), name="test", piece_bytes=1, most_pieces=1)
    stream.read(1)
    stream.close()
    stream.close()
    assert threading.active_count() == before


def test_stopping_wakes_a_reader_on_top() -> None:
    """Layers are read by a chain of threads; each may wait for the one beneath."""

    class Waiting:
        release = threading.Event()

        def read(self, _size_bytes: int, /) -> bytes:
            self.release.wait(30)
            return b""

    waiting = Waiting()
    beneath = ReadAhead(waiting, name="beneath")
    above = ReadAhead(beneath, name="above")
    beneath.stop()
    above.stop()
    above.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "above"]
    waiting.release.set()
    beneath.close()
