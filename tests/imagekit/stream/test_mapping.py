"""The meaning of qcow2's table entries, and the order of runs."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.base.errors import ImageError
from imagekit.formats.qcow2 import Qcow2Header, parse_header
from imagekit.stream.qcow2_mapping import Run, RunQueue, parse_l1, parse_l2, parse_refcount_table
from tests.support.images import COMPRESSED, COPIED, qcow2_image, sample_disk

CLUSTER = 65536


def header(*, version: int = 3, has_extended_l2: bool = False, size_bytes: int = 1 << 20) -> Qcow2Header:
    return parse_header(qcow2_image(sample_disk(size_bytes), version=version, has_extended_l2=has_extended_l2)[:512])


def words(*entries: int) -> bytes:
    return struct.pack(f">{len(entries)}Q", *entries)


def test_neighbours_become_one_run() -> None:
    table = words(CLUSTER | COPIED, 2 * CLUSTER | COPIED, 0, 3 * CLUSTER, 9 * CLUSTER)
    runs = parse_l2(header(), table, guest_bytes=0).data
    assert runs == [Run(CLUSTER, 0, 2 * CLUSTER), Run(3 * CLUSTER, 3 * CLUSTER, CLUSTER), Run(9 * CLUSTER, 4 * CLUSTER, CLUSTER)]


def test_zero_clusters_hold_nothing_but_their_room() -> None:
    runs = parse_l2(header(), words(1, 5 * CLUSTER | COPIED | 1), guest_bytes=0)
    assert (runs.data, runs.unused) == ([], [Run(5 * CLUSTER, 5 * CLUSTER, CLUSTER)])


def test_compressed_clusters() -> None:
    entry = COMPRESSED | 2 << 54 | 5 * CLUSTER + 100
    assert parse_l2(header(), words(0, entry), guest_bytes=0).compressed == [Run(5 * CLUSTER + 100, CLUSTER, 3 * 512 - 100)]


def test_reserved_bits_are_ignored() -> None:
    reserved = 0x3F00_0000_0000_01FE
    assert parse_l2(header(), words(CLUSTER | reserved), guest_bytes=0).data == [Run(CLUSTER, 0, CLUSTER)]
    assert parse_l1(header(), words(CLUSTER | reserved, reserved), table_offset_bytes=0) == [Run(CLUSTER, 0, CLUSTER)]


def test_the_disk_ends_before_the_table() -> None:
    table = words(*(number * CLUSTER for number in range(1, 30)))
    assert parse_l2(header(size_bytes=2 * CLUSTER + 512), table, guest_bytes=0).data == [Run(CLUSTER, 0, 2 * CLUSTER + 512)]
    assert parse_l2(header(size_bytes=2 * CLUSTER + 512), table, guest_bytes=2 * CLUSTER).data == [Run(CLUSTER, 2 * CLUSTER, 512)]


def test_subclusters() -> None:
    runs = parse_l2(header(has_extended_l2=True), words(4 * CLUSTER, 0b110 | 1 << 63, 0, 1 << 32), guest_bytes=0)
    assert runs.data == [Run(4 * CLUSTER + 2048, 2048, 4096)]
    assert runs.unused == [
        Run(4 * CLUSTER, 4 * CLUSTER, 2048),
        Run(4 * CLUSTER + 3 * 2048, 4 * CLUSTER + 3 * 2048, 29 * 2048),
    ]


@pytest.mark.parametrize("entry", [(4 * CLUSTER, 1 | 1 << 32), (0, 1), (4 * CLUSTER + 2048, 1)])
def test_subclusters_that_contradict_themselves(entry: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="damaged"):
        parse_l2(header(has_extended_l2=True), words(*entry), guest_bytes=0)


@pytest.mark.parametrize(("version", "entry"), [(2, 1), (3, CLUSTER + 512), (3, CLUSTER + 512 | 1)])
def test_entries_that_qemu_calls_corrupt(version: int, entry: int) -> None:
    with pytest.raises(ImageError, match="damaged"):
        parse_l2(header(version=version), words(entry), guest_bytes=0)


def test_l1_entries() -> None:
    table_bytes = header().l2_table_guest_bytes
    assert parse_l1(header(), words(0, CLUSTER | COPIED), table_offset_bytes=64) == [Run(CLUSTER, 9 * table_bytes, CLUSTER)]
    with pytest.raises(ImageError, match="damaged"):
        parse_l1(header(), words(CLUSTER + 512), table_offset_bytes=0)


def test_refcount_blocks_that_make_no_sense_are_left_out() -> None:
    assert parse_refcount_table(header(), words(0, CLUSTER, CLUSTER, CLUSTER + 512, 1 << 63)) == [Run(CLUSTER, 0, CLUSTER)]


@given(tables=st.lists(st.lists(st.tuples(st.integers(0, 1 << 56), st.integers(0, 1 << 50), st.integers(1, 1 << 30)))))
def test_runs_come_in_the_order_of_the_file(tables: list[list[tuple[int, int, int]]]) -> None:
    queue = RunQueue()
    for table in tables:
        queue.add(Run(*run) for run in table)
    total = sum(map(len, tables))
    assert queue.waiting_bytes == 24 * total
    runs = []
    while (run := queue.pop()) is not None:
        runs.append(run)
    assert sorted(runs) == sorted(Run(*run) for table in tables for run in table)
    assert all(first.host <= second.host for first, second in pairwise(runs))
    assert queue.waiting_bytes == 0
    assert not queue


def test_what_is_left_of_a_run_goes_back() -> None:
    queue = RunQueue()
    queue.add([Run(100, 0, 10)])
    assert queue.pop_before(100) is None
    assert queue.pop_before(101) == Run(100, 0, 10)
    queue.put_back(Run(105, 5, 5))
    assert queue.next_host == 105
    assert queue.pop() == Run(105, 5, 5)
    assert queue.pop() is None
