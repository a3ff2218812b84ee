"""A qcow2 image that comes as a stream, written to a disk in one pass.

QEMU allocates a table before it links data into it, so in most images what a stream brings has an owner that is known
already. The stream is taken window by window: first the tables in it are read, then everything that they, or earlier
tables, name in it is written. What has no owner yet waits in ``PendingUnits``; a table that comes later takes it from
there. Nothing is guessed: what tables name and the stream did not bring is an error, never a hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from imagekit.stream.base import ByteStream, DecodedDisk, DecodeLimits, DiskWriter
from imagekit.stream.inflate import ClusterInflater
from imagekit.stream.pending import PendingUnits
from imagekit.stream.qcow2_assembly import Assembly, truncated
from imagekit.stream.qcow2_header import read_safe_header
from imagekit.stream.qcow2_mapping import Run, RunQueue
from imagekit.stream.windows import Window, WindowReader


def decode_qcow2_stream(
    stream: ByteStream,
    writer: DiskWriter,
    *,
    size_bytes: int | None,
    limits: DecodeLimits,
    open_spill: Callable[[], BinaryIO] | None,
) -> DecodedDisk:
    """Write the disk in a qcow2 stream, which is read to its end.

    Args:
        size_bytes: Length of the stream, where it is known.
        open_spill: Opens an unlinked temporary file for what does not fit into ``limits.pending_bytes``.

    Raises:
        ImageError: The image is unsafe, damaged or not qcow2; nothing was written when its header says so.
        LateTablesError: More than fits into memory came before its tables, and there is no file for it.
        VerificationError: The stream is shorter than its tables say (``TruncatedStream``).
        NoSpaceError: The disk does not fit; nothing was written when its size says so.
    """
    windows = WindowReader(stream, size_bytes=size_bytes)
    window = windows.read(0)
    header = read_safe_header(bytes(window.view), file_size_bytes=window.end if window.is_last else size_bytes, limits=limits)
    writer.begin(header.virtual_size_bytes)
    pending = PendingUnits(unit_bytes=header.subcluster_size_bytes, most_bytes=limits.pending_bytes, open_spill=open_spill)
    with ClusterInflater(header, writer) as inflater:
        decoder = _StreamDecoder(Assembly(header, writer, inflater, limits=limits), pending)
        try:
            while not window.is_last:
                window = windows.read(decoder.take(window))
            decoder.take(window)
        finally:
            pending.clear()
        return decoder.assembly.finish(window.end)


class _StreamDecoder:
    def __init__(self, assembly: Assembly, pending: PendingUnits) -> None:
        self.assembly = assembly
        self._pending = pending
        self._unit_bytes = assembly.header.subcluster_size_bytes
        self._cluster_bytes = assembly.header.cluster_size_bytes

    def take(self, window: Window) -> int:
        """Use a window; return from which offset on it must be in the next one."""
        # Clusters are used whole, except where the stream ends.
        end = window.end if window.is_last else window.end // self._cluster_bytes * self._cluster_bytes
        self.assembly.ownership.extend(end)
        self._take_tables(window, end)
        self._take_unused(end)
        self._take_data(window, end)
        keep_from = self._take_compressed(window, end)
        self._keep_unowned(window, keep_from)
        return keep_from

    def _take_tables(self, window: Window, end: int) -> None:
        assembly = self.assembly
        for run in _runs_before(assembly.l1, end, is_last=window.is_last):
            assembly.add_l1(run, self._bytes(window, run))
        for run in _runs_before(assembly.l2, end, is_last=window.is_last):
            assembly.add_l2(run, self._bytes(window, run))
        for run in _runs_before(assembly.refcounts, end, is_last=False):
            assembly.add_refcounts(run, self._bytes(window, run._replace(size_bytes=run.size_bytes // 8 * 8)))

    def _take_unused(self, end: int) -> None:
        for run in _runs_before(self.assembly.unused, end, is_last=False):
            self.assembly.ownership.claim(run.host, run.size_bytes)
            self._pending.drop(run.host // self._unit_bytes, -(-run.end // self._unit_bytes))

    def _take_data(self, window: Window, end: int) -> None:
        for run in _runs_before(self.assembly.data, end, is_last=window.is_last):
            self.assembly.ownership.claim(run.host, run.size_bytes)
            guest = run.guest
            for piece in self._pieces(window, run):
                self.assembly.write(guest, piece)
                guest += len(piece)
            if run.host < window.start:
                self._pending.drop(run.host // self._unit_bytes, -(-run.end // self._unit_bytes))

    def _take_compressed(self, window: Window, end: int) -> int:
        """Inflate what is here as a whole; return where the first begins that goes on behind the window, or ``end``."""
        crossing: list[Run] = []
        while (run := self.assembly.compressed.pop_before(end)) is not None:
            if run.end > window.end and not window.is_last:
                crossing.append(run)
            else:
                self.assembly.inflate(run, self._bytes(window, run))
        for run in crossing:
            self.assembly.compressed.put_back(run)
        first = min((run.host for run in crossing), default=end)
        return max(window.start, first // self._cluster_bytes * self._cluster_bytes)

    def _keep_unowned(self, window: Window, end: int) -> None:
        if not self.assembly.has_tables_to_come:
            self._pending.clear()  # nothing in it can be named any more
            return
        for first, after in self.assembly.ownership.unowned(window.start, end):
            self._pending.keep(first, window.cut(first * self._unit_bytes, min(end, after * self._unit_bytes)))

    def _bytes(self, window: Window, run: Run) -> bytes | memoryview:
        if run.host >= window.start:
            return window.cut(run.host, run.end)
        return b"".join(self._pieces(window, run))

    def _pieces(self, window: Window, run: Run) -> Iterator[bytes | memoryview]:
        if run.host < window.start:
            yield from self._pending.pieces(run.host, min(run.end, window.start) - run.host)
        if run.end > window.start:
            yield window.cut(max(run.host, window.start), run.end)


def _runs_before(queue: RunQueue, end: int, *, is_last: bool) -> Iterator[Run]:
    """Take the runs that begin before ``end``, cut there; at the end of the stream nothing may be cut."""
    while (run := queue.pop_before(end)) is not None:
        here_bytes = end - run.host
        if run.size_bytes <= here_bytes:
            yield run
            continue
        if is_last:
            raise truncated(end, run.host)
        queue.put_back(Run(end, run.guest + here_bytes, run.size_bytes - here_bytes))
        yield Run(run.host, run.guest, here_bytes)
