"""What qcow2's tables say: which bytes of the image file are which bytes of the guest's disk. Pure.

Source: docs/interop/qcow2.txt of QEMU, sections "Host cluster management", "L1 table", "L2 tables" and "Extended L2
Entries". A ``Run`` is a stretch that is contiguous in the file and on the disk; runs come in the order of the file,
because that is the order in which a stream brings them.
"""

from __future__ import annotations

import heapq
import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from imagekit.base.errors import ImageError
from imagekit.formats.qcow2 import COMPRESSED_FLAG, OFFSET_MASK, ZERO_FLAG, Qcow2Header

_SUBCLUSTERS = 32
_ALL_SUBCLUSTERS = (1 << _SUBCLUSTERS) - 1
_REFCOUNT_OFFSET_MASK = ~511 & (1 << 64) - 1
_BYTES_PER_RUN = 24
_BEHIND_EVERYTHING = 1 << 64


class Run(NamedTuple):
    """``size_bytes`` at ``host`` of the file belong at ``guest``: of the disk, or of the table when it is a table's run."""

    host: int
    guest: int
    size_bytes: int

    @property
    def end(self) -> int:
        """Where it ends in the file."""
        return self.host + self.size_bytes


class RunQueue:
    """Runs of many tables, taken in the order of the file; 24 bytes each while they wait."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Iterator[Run], Run]] = []
        self._serial = 0
        self.waiting_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._heap)

    @property
    def next_host(self) -> int:
        """Where the next run begins in the file; behind everything when there is none."""
        return self._heap[0][0] if self._heap else _BEHIND_EVERYTHING

    def add(self, runs: Iterable[Run]) -> None:
        """Add the runs of one table, in any order."""
        ordered = sorted(runs)
        if not ordered:
            return
        packed = array("Q")
        for run in ordered:
            packed.extend(run)
        self.waiting_bytes += len(ordered) * _BYTES_PER_RUN
        self._push(_unpacked(packed))

    def pop(self) -> Run | None:
        """Take the next run; None when there is none."""
        return self.pop_before(_BEHIND_EVERYTHING)

    def pop_before(self, stop_bytes: int) -> Run | None:
        """Take the next run if it begins before ``stop_bytes``; None when none does."""
        if not self._heap or self._heap[0][0] >= stop_bytes:
            return None
        _host, serial, rest, run = self._heap[0]
        following = next(rest, None)
        if following is None:
            heapq.heappop(self._heap)
        else:
            heapq.heapreplace(self._heap, (following.host, serial, rest, following))
        self.waiting_bytes -= _BYTES_PER_RUN
        return run

    def put_back(self, run: Run) -> None:
        """Return a run, or what is left of one."""
        self.waiting_bytes += _BYTES_PER_RUN
        self._push(iter((run,)))

    def _push(self, runs: Iterator[Run]) -> None:
        first = next(runs)
        self._serial += 1
        heapq.heappush(self._heap, (first.host, self._serial, runs, first))


def _unpacked(packed: array[int]) -> Iterator[Run]:
    for index in range(0, len(packed), 3):
        yield Run(*packed[index : index + 3])


@dataclass(slots=True)
class TableRuns:
    """What one L2 table maps: plain data, compressed clusters, and room in the file that holds nothing of the disk."""

    data: list[Run] = field(default_factory=list)
    compressed: list[Run] = field(default_factory=list)
    unused: list[Run] = field(default_factory=list)


def l1_run(header: Qcow2Header) -> Run:
    """Return where the part of the L1 table lies that maps the disk; VM states of snapshots lie beyond it."""
    return Run(header.l1_offset_bytes, 0, header.needed_l1_entries * 8)


def parse_l1(header: Qcow2Header, table: bytes | memoryview, *, table_offset_bytes: int) -> list[Run]:
    """Return the L2 tables named by a part of the L1 table; their ``guest`` is where they begin to map.

    Raises:
        ImageError: An entry is not the offset of a cluster.
    """
    guest = table_offset_bytes // 8 * header.l2_table_guest_bytes
    tables = []
    for entry in _entries(table):
        host = entry & OFFSET_MASK
        if host:
            _require_aligned(header, host, what="an L2 table")
            tables.append(Run(host, guest, header.cluster_size_bytes))
        guest += header.l2_table_guest_bytes
    return tables


def parse_refcount_table(header: Qcow2Header, table: bytes | memoryview) -> list[Run]:
    """Return the refcount blocks named by a part of the refcount table: nothing of the disk is in them."""
    hosts = {entry & _REFCOUNT_OFFSET_MASK for entry in _entries(table)}
    size_bytes = header.cluster_size_bytes
    return [Run(host, 0, size_bytes) for host in hosts if host and host % size_bytes == 0 and host < 1 << 62]


def parse_l2(header: Qcow2Header, table: bytes | memoryview, *, guest_bytes: int) -> TableRuns:
    """Return what an L2 table maps that begins to map at ``guest_bytes`` of the disk.

    Entries beyond the virtual size are ignored, reserved bits too, as QEMU does.

    Raises:
        ImageError: QEMU would call an entry corrupt.
    """
    runs = TableRuns()
    room_bytes = header.virtual_size_bytes - guest_bytes
    entries = _entries(table)
    if not any(entries):
        return runs
    last = -(-min(room_bytes, header.l2_table_guest_bytes) // header.cluster_size_bytes)
    if header.has_extended_l2:
        _parse_extended(header, entries[: 2 * last], runs, guest=guest_bytes)
    else:
        _parse_standard(header, entries[:last], runs, guest=guest_bytes)
    _cut_at_disk_end(header, runs)
    return runs


def _cut_at_disk_end(header: Qcow2Header, runs: TableRuns) -> None:
    # Only the last run can reach beyond the disk, by less than a cluster, as runs were made in the guest's order.
    if runs.data:
        last = runs.data[-1]
        runs.data[-1] = last._replace(size_bytes=min(last.size_bytes, header.virtual_size_bytes - last.guest))


def _parse_standard(header: Qcow2Header, entries: array[int], runs: TableRuns, *, guest: int) -> None:
    cluster_bytes = header.cluster_size_bytes
    for entry in entries:
        if entry & COMPRESSED_FLAG:
            _add_compressed(header, entry, runs, guest=guest)
        elif entry & ZERO_FLAG:
            _add_zero_cluster(header, entry, runs)
        elif host := entry & OFFSET_MASK:
            _require_aligned(header, host, what="a data cluster")
            _append(runs.data, Run(host, guest, cluster_bytes))
        guest += cluster_bytes


def _parse_extended(header: Qcow2Header, entries: array[int], runs: TableRuns, *, guest: int) -> None:
    for index in range(0, len(entries), 2):
        entry, bitmap = entries[index], entries[index + 1]
        if entry & COMPRESSED_FLAG:
            _add_compressed(header, entry, runs, guest=guest)
        else:
            _add_subclusters(header, Run(entry & OFFSET_MASK, guest, header.subcluster_size_bytes), runs, bitmap=bitmap)
        guest += header.cluster_size_bytes


def _add_compressed(header: Qcow2Header, entry: int, runs: TableRuns, *, guest: int) -> None:
    host, size_bytes = header.compressed_range(entry)
    runs.compressed.append(Run(host, guest, size_bytes))


def _add_zero_cluster(header: Qcow2Header, entry: int, runs: TableRuns) -> None:
    if header.version < 3:
        raise _damaged("a zero cluster in a version 2 image")
    if host := entry & OFFSET_MASK:
        _require_aligned(header, host, what="a zero cluster")
        _append(runs.unused, Run(host, host, header.cluster_size_bytes))


def _add_subclusters(header: Qcow2Header, first: Run, runs: TableRuns, *, bitmap: int) -> None:
    allocated, zero = bitmap & _ALL_SUBCLUSTERS, bitmap >> _SUBCLUSTERS
    if first.host == 0:
        if allocated:
            raise _damaged("a cluster without a place has allocated subclusters")
        return
    if allocated & zero:
        raise _damaged("a subcluster is allocated and zero at once")
    _require_aligned(header, first.host, what="a data cluster")
    for number in range(_SUBCLUSTERS):
        step_bytes = number * first.size_bytes
        if allocated >> number & 1:
            _append(runs.data, Run(first.host + step_bytes, first.guest + step_bytes, first.size_bytes))
        else:
            _append(runs.unused, Run(first.host + step_bytes, first.host + step_bytes, first.size_bytes))


def _append(runs: list[Run], run: Run) -> None:
    if runs and runs[-1].host + runs[-1].size_bytes == run.host and runs[-1].guest + runs[-1].size_bytes == run.guest:
        last = runs[-1]
        runs[-1] = Run(last.host, last.guest, last.size_bytes + run.size_bytes)
    else:
        runs.append(run)


def _entries(table: bytes | memoryview) -> array[int]:
    entries = array("Q")
    entries.frombytes(table)
    if sys.byteorder == "little":
        entries.byteswap()
    return entries


def _require_aligned(header: Qcow2Header, host: int, *, what: str) -> None:
    if host % header.cluster_size_bytes:
        raise _damaged(f"{what} at {host} is not aligned to a cluster")


def _damaged(message: str) -> ImageError:
    return ImageError(
        f"the qcow2 tables are damaged: {message}", reason="UnsafeImage", hint="`qemu-img check -f qcow2` may say more"
    )
