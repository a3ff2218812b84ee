"""Zeros are found, and nothing else is taken for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imagekit.base.units import KIB, MIB
from imagekit.stream.sparse import is_zero, nonzero_extents


@given(
    offset=st.integers(0, 200).map(lambda sectors: sectors * 512),
    size=st.integers(0, 300 * KIB),
    marks=st.lists(st.integers(0, 300 * KIB), max_size=6),
)
def test_what_is_left_out_is_zero(offset: int, size: int, marks: list[int]) -> None:
    content = bytearray(size)
    for mark in marks:
        if mark < size:
            content[mark] = 1
    rebuilt = bytearray(size)
    previous_end = 0
    for start, end in nonzero_extents(memoryview(content), offset):
        assert previous_end <= start < end <= size
        rebuilt[start:end] = content[start:end]
        previous_end = end
    assert rebuilt == content


def test_blocks_are_cut_to_pages() -> None:
    content = bytearray(MIB)
    content[200 * KIB] = content[210 * KIB] = 1
    assert list(nonzero_extents(memoryview(content), 0)) == [(200 * KIB, 212 * KIB)]
    assert list(nonzero_extents(memoryview(bytes(MIB)), 0)) == []
    assert list(nonzero_extents(memoryview(b"\1" * MIB), 512)) == [(0, MIB)]


def test_is_zero() -> None:
    assert is_zero(b"")
    assert is_zero(bytes(3 * MIB))
    assert not is_zero(bytes(3 * MIB) + b"\1")
    assert not is_zero(memoryview(b"\0\1"))
