"""What waits for its owner: in memory, in a file, or not at all; and who owns what."""

from __future__ import annotations

import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.base.errors import ImageError, NoSpaceError
from imagekit.stream import LateTablesError
from imagekit.stream.pending import PendingUnits
from imagekit.stream.qcow2_ownership import Ownership
from tests.imagekit.stream.doubles import open_spill

UNIT = 512


@given(
    stretches=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), max_size=12),
    most_bytes=st.sampled_from([0, UNIT, 5 * UNIT, 1 << 20]),
    reads=st.lists(st.tuples(st.integers(0, 40 * UNIT), st.integers(1, 9 * UNIT)), max_size=10),
)
def test_kept_units_are_returned(stretches: list[tuple[int, int]], most_bytes: int, reads: list[tuple[int, int]]) -> None:
    pending = PendingUnits(unit_bytes=UNIT, most_bytes=most_bytes, open_spill=open_spill)
    file: dict[int, int] = {}
    unit = 0
    for gap, length in stretches:
        unit += gap
        content = bytes((unit + place) % 255 + 1 for place in range(length) for _ in range(UNIT))
        pending.keep(unit, memoryview(content))
        file |= {unit * UNIT + place: byte for place, byte in enumerate(content)}
        unit += length
    for start, length in reads:
        expected = [file.get(place) for place in range(start, start + length)]
        if None in expected:
            with pytest.raises(ImageError):
                b"".join(pending.pieces(start, length))
        else:
            assert b"".join(pending.pieces(start, length)) == bytes(byte for byte in expected if byte is not None)
    pending.clear()


def test_without_a_file_the_bound_is_an_error() -> None:
    pending = PendingUnits(unit_bytes=UNIT, most_bytes=2 * UNIT, open_spill=None)
    pending.keep(0, memoryview(bytes(2 * UNIT)))
    pending.drop(0, 1)
    pending.keep(2, memoryview(bytes(UNIT)))
    with pytest.raises(LateTablesError):
        pending.keep(3, memoryview(bytes(UNIT)))


def test_a_full_disk_is_told_as_such() -> None:
    with open("/dev/full", "w+b", buffering=0) as full:
        pending = PendingUnits(unit_bytes=UNIT, most_bytes=0, open_spill=lambda: full)
        with pytest.raises(NoSpaceError):
            pending.keep(0, memoryview(bytes(UNIT)))


def test_clear_closes_the_file() -> None:
    with tempfile.TemporaryFile() as file:
        pending = PendingUnits(unit_bytes=UNIT, most_bytes=0, open_spill=lambda: file)
        pending.keep(0, memoryview(bytes(UNIT)))
        pending.clear()
        assert file.closed
    with pytest.raises(ImageError):
        list(pending.pieces(0, UNIT))


def owned(end_units: int = 8) -> Ownership:
    ownership = Ownership(UNIT)
    ownership.extend(end_units * UNIT)
    return ownership


def test_nothing_has_two_owners() -> None:
    ownership = owned()
    ownership.claim(UNIT, 2 * UNIT)
    for start in (UNIT, 2 * UNIT):
        with pytest.raises(ImageError):
            ownership.claim(start, UNIT)
        with pytest.raises(ImageError):
            ownership.claim_compressed(start, UNIT)
    assert list(ownership.unowned(0, 8 * UNIT)) == [(0, 1), (3, 8)]


def test_compressed_clusters_share_units() -> None:
    ownership = Ownership(4096)
    ownership.extend(5 * 4096)
    ownership.claim_compressed(4096, 3000)
    assert list(ownership.unowned(0, 5 * 4096)) == [(0, 5)], "a part of a unit may belong to a table that is still to come"
    ownership.claim_compressed(4096 + 2900, 4096 + 1000)
    assert list(ownership.unowned(0, 5 * 4096)) == [(0, 1), (2, 5)]
    with pytest.raises(ImageError):
        ownership.claim(2 * 4096, 4096)


@pytest.mark.parametrize("start", [4096, 4096 + 2000, 4096 + 3000 - 512])
def test_compressed_clusters_do_not_lie_over_each_other(start: int) -> None:
    ownership = Ownership(4096)
    ownership.extend(5 * 4096)
    ownership.claim_compressed(4096, 3000)
    with pytest.raises(ImageError):
        ownership.claim_compressed(start, 3000)


def test_the_last_sector_may_hold_the_beginning_of_another() -> None:
    ownership = Ownership(4096)
    ownership.extend(5 * 4096)
    ownership.claim_compressed(0, 4096)
    assert list(ownership.unowned(0, 4096)) == [(0, 1)]
    ownership.claim_compressed(4096 - 100, 1000)
    assert list(ownership.unowned(0, 4096)) == []
