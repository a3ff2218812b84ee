"""Compressed qcow2 clusters, inflated by threads beside the reader: isal and zstd release the interpreter's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import cast

from imagekit.base.errors import ImageError
from imagekit.base.units import KIB, MIB
from imagekit.formats.qcow2 import CompressionType, Qcow2Header
from imagekit.stream.base import DiskWriter

_BATCH_BYTES = 512 * KIB
_AHEAD_BYTES = 8 * MIB
_THREADS = 2
# QEMU writes windows of at most a cluster; this is what zstd itself calls the largest that any decoder should allow.
_LARGEST_ZSTD_WINDOW = 8 * MIB

Compressed = tuple[int, bytes | memoryview]
Inflate = Callable[[bytes | memoryview], bytes]


class ClusterInflater:
    """Inflates clusters in batches and hands them to the writer, from the thread that calls.

    Use it as a context manager: leaving it ends the threads.
    """

    def __init__(self, header: Qcow2Header, writer: DiskWriter) -> None:
        self._header = header
        self._writer = writer
        self._clusters_per_batch = max(1, _BATCH_BYTES // header.cluster_size_bytes)
        self._most_batches = max(_THREADS + 1, _AHEAD_BYTES // (self._clusters_per_batch * header.cluster_size_bytes))
        self._batch: list[Compressed] = []
        self._running: deque[Future[list[tuple[int, bytes]]]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self.written_bytes = 0

    def __enter__(self) -> ClusterInflater:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def add(self, guest: int, compressed: bytes | memoryview) -> None:
        """Take the cluster that belongs at ``guest``; it reaches the writer later.

        Raises:
            ImageError: It, or one before it, is not what inflates to a cluster.
        """
        self._batch.append((guest, compressed))
        if len(self._batch) >= self._clusters_per_batch:
            self._submit()

    def finish(self) -> None:
        """Hand everything to the writer."""
        self._submit()
        while self._running:
            self._write_oldest()

    def _submit(self) -> None:
        if not self._batch:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="inflate")
        self._running.append(self._pool.submit(_inflate_all, self._header, self._batch))
        self._batch = []
        while len(self._running) > self._most_batches:
            self._write_oldest()

    def _write_oldest(self) -> None:
        for guest, cluster in self._running.popleft().result():
            visible_bytes = min(len(cluster), self._header.virtual_size_bytes - guest)
            self._writer.write_at(guest, memoryview(cluster)[:visible_bytes])
            self.written_bytes += visible_bytes


def _inflate_all(header: Qcow2Header, batch: list[Compressed]) -> list[tuple[int, bytes]]:
    inflate = _zstd(header) if header.compression_type is CompressionType.ZSTD else _zlib(header)
    return list(_inflated(header, batch, inflate))


def _inflated(header: Qcow2Header, batch: list[Compressed], inflate: Inflate) -> Iterator[tuple[int, bytes]]:
    for guest, compressed in batch:
        try:
            cluster = inflate(compressed)
        except ValueError as error:
            raise _damaged(guest) from error
        if len(cluster) != header.cluster_size_bytes:
            raise _damaged(guest)
        yield guest, cluster


def _zlib(header: Qcow2Header) -> Inflate:
    from isal import isal_zlib

    not_deflate = cast("type[Exception]", isal_zlib.IsalError)

    def inflate(compressed: bytes | memoryview) -> bytes:
        # QEMU writes a window of 12 bits; 15 reads that and whatever else a tool may have written. The output is bounded;
        # input that goes on behind a full cluster is padding to the sector.
        try:
            cluster: bytes = isal_zlib.decompressobj(-15).decompress(compressed, header.cluster_size_bytes)
        except not_deflate as error:
            raise ValueError(str(error)) from error
        return cluster

    return inflate


def _zstd(header: Qcow2Header) -> Inflate:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_LARGEST_ZSTD_WINDOW)
    most_bytes = header.cluster_size_bytes

    def inflate(compressed: bytes | memoryview) -> bytes:
        try:
            # The frame's own claim decides what decompress() allocates: it is read first.
            claimed_bytes = zstandard.frame_content_size(compressed)
            if claimed_bytes > most_bytes:
                raise ValueError(f"the frame claims {claimed_bytes} bytes")
            return decompressor.decompress(compressed, max_output_size=most_bytes, allow_extra_data=True)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error

    return inflate


def _damaged(guest: int) -> ImageError:
    return ImageError(
        f"the compressed cluster for offset {guest} of the disk is damaged",
        reason="UnsafeImage",
        hint="fetch the image again; `qemu-img check -f qcow2` may say more",
    )
