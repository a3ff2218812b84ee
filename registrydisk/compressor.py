"""Compressing a layer: independent members, made by several threads, written in order.

Each block becomes a gzip member or a zstd frame of its own. Readers see one stream (RFC 1952 §2.2, RFC 8878 §3), while
we compress in parallel, with memory that does not grow with the layer, and with the same bytes for any number of threads.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from importlib.metadata import version

from imagekit.base.errors import UsageError
from imagekit.base.units import MIB

BLOCK_BYTES = 4 * MIB
"""Compressed at once. Larger ones gain nothing in size; smaller ones cost calls and, for a later index, entries."""

_GZIP_HEADER = b"\x1f\x8b\x08\x00" + bytes(5) + b"\xff"  # deflate, no name, time 0, unknown system: the same everywhere
_LARGEST_STORED = 65_535  # RFC 1951 §3.2.4
_MOST_THREADS = 8
_BLOCKS_A_THREAD = 2

Compress = Callable[[bytes], bytes]


class LayerMode(StrEnum):
    """How a layer's bytes travel; AUTO chooses STORE for disks that are compressed already, else GZIP."""

    AUTO = "auto"
    STORE = "store"
    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"

    @property
    def suffix(self) -> str:
        """What the layer's media type ends with: stored blocks are gzip to everybody."""
        return {"none": "", "zstd": "+zstd"}.get(self.value, "+gzip")


DEFAULT_LEVELS = {LayerMode.GZIP: 2, LayerMode.ZSTD: 3}
"""ISA-L has levels 0 to 3, and 2 is nearly as fast as 1; zstd's own default is 3."""

_LEVELS = {LayerMode.GZIP: range(4), LayerMode.ZSTD: range(1, 20)}


class BlockCompressor:
    """Compresses the blocks of one layer.

    Args:
        mode: Any but AUTO.
        level: None for the mode's default.
    """

    def __init__(self, mode: LayerMode, *, level: int | None = None, threads: int | None = None) -> None:
        self._level = _checked_level(mode, level)
        self.mode = mode
        self._compress = _compress_function(mode, self._level)
        self._threads = threads or min(os.cpu_count() or 1, _MOST_THREADS)
        self._zeros = bytes(BLOCK_BYTES)
        self._compressed_zeros: bytes | None = None

    @property
    def description(self) -> str:
        """What made the bytes: they depend on the library's version, so two digests differ where two of these do."""
        match self.mode:
            case LayerMode.GZIP:
                return f"gzip;engine=isal/{version('isal')};level={self._level};block={BLOCK_BYTES}"
            case LayerMode.ZSTD:
                return f"zstd;engine=zstandard/{version('zstandard')};level={self._level};block={BLOCK_BYTES}"
            case LayerMode.STORE:
                return f"gzip;engine=stored;block={BLOCK_BYTES}"
            case _:
                return "none"

    def compressed(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield each block compressed, in order; at most two blocks a thread are in memory."""
        if self.mode is LayerMode.NONE:
            yield from blocks
            return
        pending: deque[Future[bytes]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="compress") as pool:
            try:
                for block in blocks:
                    pending.append(pool.submit(self._compress_block, block))
                    del block  # or it would live until the next one is read
                    if len(pending) >= _BLOCKS_A_THREAD * self._threads:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def _compress_block(self, block: bytes) -> bytes:
        """Compress a block; the many that are all zeros in a sparse disk only once."""
        if block != self._zeros:
            return self._compress(block)
        if self._compressed_zeros is None:
            self._compressed_zeros = self._compress(block)
        return self._compressed_zeros


def gzip_member(block: bytes, *, level: int) -> bytes:
    """Return ``block`` as a gzip member, deflated by ISA-L."""
    from isal import igzip_lib

    return _member(block, igzip_lib.compress(block, level, igzip_lib.COMP_DEFLATE))


def stored_member(block: bytes) -> bytes:
    """Return ``block`` as a gzip member of stored blocks: hardly larger, as fast as copying, free of any library."""
    view = memoryview(block)
    pieces: list[bytes | memoryview] = []
    for start in range(0, len(block), _LARGEST_STORED):
        piece = view[start : start + _LARGEST_STORED]
        is_last = start + len(piece) == len(block)
        pieces.append(struct.pack("<BHH", is_last, len(piece), len(piece) ^ 0xFFFF))
        pieces.append(piece)
    return _member(block, b"".join(pieces))


def _member(block: bytes, deflated: bytes) -> bytes:
    from isal import isal_zlib

    return b"".join((_GZIP_HEADER, deflated, struct.pack("<II", isal_zlib.crc32(block), len(block) & 0xFFFFFFFF)))


def _zstd_function(level: int) -> Compress:
    import threading

    import zstandard

    local = threading.local()  # a compressor serves one thread at a time

    def compress(block: bytes) -> bytes:
        if not hasattr(local, "compressor"):
            local.compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        compressed = local.compressor.compress(block)
        assert isinstance(compressed, bytes)
        return compressed

    return compress


def _compress_function(mode: LayerMode, level: int) -> Compress:
    match mode:
        case LayerMode.GZIP:
            return lambda block: gzip_member(block, level=level)
        case LayerMode.STORE:
            return stored_member
        case LayerMode.ZSTD:
            return _zstd_function(level)
        case LayerMode.NONE:
            return lambda block: block
        case LayerMode.AUTO:
            raise AssertionError("the mode is chosen before compressing")


def _checked_level(mode: LayerMode, level: int | None) -> int:
    allowed = _LEVELS.get(mode)
    if allowed is None:
        if level is not None:
            raise UsageError(f"the layer mode {mode} has no compression levels")
        return 0
    if level is None:
        return DEFAULT_LEVELS[mode]
    if level not in allowed:
        raise UsageError(f"{level} is not a compression level of {mode}", hint=f"choose one from {allowed[0]} to {allowed[-1]}")
    return level
