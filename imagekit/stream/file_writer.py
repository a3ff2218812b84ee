"""A disk as a sparse regular file or a block device, filled by a few threads with bounded memory and dirty pages."""

from __future__ import annotations

import os
import threading
from array import array
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from imagekit.base.errors import NoSpaceError
from imagekit.base.files import translate_os_error
from imagekit.base.units import MIB, format_size
from imagekit.stream.block_device import device_size_bytes, zero_range
from imagekit.stream.sparse import nonzero_extents, write_all
from imagekit.stream.writeback import Writeback

_BATCH_BYTES = MIB
_QUEUE_BYTES = 16 * MIB
# What makes a disk bootable or recognisable lies here: partition tables, boot sectors, file system headers.
_HELD_BYTES = MIB


class FileWriter:
    """Writes a disk into a descriptor; a ``GrowingWriter``.

    A regular file is emptied and gets the disk's size; zeros become holes. On a block device what is not
    written of the disk is zeroed, and the first MiB is zero until the rest is durable: a device that was filled halfway does not
    look like a disk. Use it as a context manager where decoding may fail: leaving it waits for the threads.

    Args:
        descriptor: Open for writing; stays the caller's, who may close it at any time.
        is_device: Whether it is a block device.
        capacity_bytes: Largest disk that fits; a device's own size when None.
        threads: How many write at once; one fills a file as fast as two, which only wait for each other at its lock.
    """

    def __init__(self, descriptor: int, *, is_device: bool, capacity_bytes: int | None, threads: int = 1) -> None:
        # Our own: were the caller's closed early, a late write could reach whatever file got its number.
        self._descriptor = os.dup(descriptor)
        self._is_device = is_device
        if is_device and capacity_bytes is None:
            capacity_bytes = device_size_bytes(self._descriptor)
        self._capacity_bytes = capacity_bytes
        self._size_bytes = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="write")
        self._running: deque[tuple[Future[None], int]] = deque()
        self._running_bytes = 0
        self._batch: list[bytes | memoryview] = []
        self._batch_start = self._batch_end = 0
        self._held = bytearray(_HELD_BYTES if is_device else 0)
        self._extents = _Extents()
        self._writeback = Writeback(self._descriptor)

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()

    @property
    def capacity_bytes(self) -> int | None:
        """Largest virtual size that fits; None when only the file system limits it."""
        return self._capacity_bytes

    def begin(self, virtual_size_bytes: int) -> None:
        """Prepare a disk of this size.

        Raises:
            NoSpaceError: It does not fit (``TooLarge``); nothing was written.
        """
        self._require_capacity(virtual_size_bytes)
        self._size_bytes = virtual_size_bytes
        try:
            if self._is_device:
                zero_range(self._descriptor, 0, min(_HELD_BYTES, virtual_size_bytes))
                os.fdatasync(self._descriptor)
            else:
                os.ftruncate(self._descriptor, 0)
                os.ftruncate(self._descriptor, virtual_size_bytes)
        except OSError as error:
            raise translate_os_error(error, doing="prepare the disk") from error

    def grow(self, virtual_size_bytes: int) -> None:
        """Make the disk at least this large; for a stream whose length shows only at its end.

        Raises:
            NoSpaceError: It does not fit (``TooLarge``).
        """
        self._require_capacity(virtual_size_bytes)
        self._size_bytes = max(self._size_bytes, virtual_size_bytes)

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Take data for this place; it must not change afterwards.

        Raises:
            ImagekitError: This or an earlier write failed.
        """
        if offset_bytes < len(self._held):
            held_bytes = min(len(data), len(self._held) - offset_bytes)
            self._held[offset_bytes : offset_bytes + held_bytes] = data[:held_bytes]
            offset_bytes, data = offset_bytes + held_bytes, data[held_bytes:]
        if not data:
            return
        if offset_bytes != self._batch_end or self._batch_end - self._batch_start >= _BATCH_BYTES:
            self._submit()
            self._batch_start = offset_bytes
        self._batch.append(data)
        self._batch_end = offset_bytes + len(data)

    def finish(self) -> None:
        """Write what waits, zero a device's gaps, and make everything durable.

        Raises:
            ImagekitError: Some write failed.
        """
        try:
            self._submit()
            self._wait(0)
            self._complete()
        except OSError as error:
            raise translate_os_error(error, doing="write the disk") from error
        finally:
            self.close()

    def close(self) -> None:
        """End the threads and give the descriptor back; harmless when repeated."""
        self._pool.shutdown(cancel_futures=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _require_capacity(self, needed_bytes: int) -> None:
        if self._capacity_bytes is not None and needed_bytes > self._capacity_bytes:
            raise NoSpaceError(
                f"the disk does not fit: it needs {format_size(needed_bytes)} ({needed_bytes} bytes), "
                f"the target has {format_size(self._capacity_bytes)} ({self._capacity_bytes} bytes)",
                reason="TooLarge",
                hint="choose a larger target",
            )

    def _submit(self) -> None:
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        size_bytes = self._batch_end - self._batch_start
        future = self._pool.submit(self._write_batch, batch, self._batch_start)
        self._running.append((future, size_bytes))
        self._running_bytes += size_bytes
        self._wait(_QUEUE_BYTES)

    def _wait(self, most_bytes: int) -> None:
        while self._running and (self._running_bytes > most_bytes or self._running[0][0].done()):
            future, size_bytes = self._running.popleft()
            self._running_bytes -= size_bytes
            future.result()

    def _write_batch(self, batch: list[bytes | memoryview], offset_bytes: int) -> None:
        view = memoryview(batch[0] if len(batch) == 1 else b"".join(batch))
        try:
            for start, end in nonzero_extents(view, offset_bytes):
                write_all(self._descriptor, view[start:end], offset_bytes + start)
                if self._is_device:
                    self._extents.add(offset_bytes + start, offset_bytes + end)
                self._writeback.wrote(end - start)
        except OSError as error:
            raise translate_os_error(error, doing="write the disk") from error

    def _complete(self) -> None:
        if self._is_device:
            for start, end in self._extents.gaps(len(self._held), self._size_bytes):
                zero_range(self._descriptor, start, end)
            os.fdatasync(self._descriptor)
            write_all(self._descriptor, memoryview(self._held)[: self._size_bytes], 0)
        else:
            os.ftruncate(self._descriptor, self._size_bytes)
        os.fsync(self._descriptor)


class _Extents:
    """What was written, to find what was not; in any order, from any thread."""

    def __init__(self) -> None:
        self._starts = array("Q")
        self._ends = array("Q")
        self._lock = threading.Lock()

    def add(self, start: int, end: int) -> None:
        with self._lock:
            if self._ends and self._ends[-1] == start:
                self._ends[-1] = end
            else:
                self._starts.append(start)
                self._ends.append(end)

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the ranges between ``start`` and ``end`` that nothing was written to."""
        found = []
        for extent_start, extent_end in sorted(zip(self._starts, self._ends, strict=True)):
            if start < extent_start:
                found.append((start, extent_start))
            start = max(start, extent_end)
        if start < end:
            found.append((start, end))
        return found
