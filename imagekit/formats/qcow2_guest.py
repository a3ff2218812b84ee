"""The guest's view of a qcow2 image: what its disk holds at a place; for a look, not for decoding whole disks."""

from __future__ import annotations

import zlib

from imagekit.base.errors import VerificationError
from imagekit.base.readers import RandomReader
from imagekit.formats.qcow2 import COMPRESSED_FLAG, OFFSET_MASK, ZERO_FLAG, CompressionType, Qcow2Header
from imagekit.formats.qcow2_walk import read_entries


def read_guest(header: Qcow2Header, reader: RandomReader, *, offset_bytes: int, size_bytes: int) -> bytes:
    """Return what the guest reads there; shorter at the disk's end. The image must be a safe one.

    Raises:
        VerificationError: A compressed cluster is damaged (``CorruptStream``).
    """
    end = min(offset_bytes + size_bytes, header.virtual_size_bytes)
    first, last = offset_bytes >> header.cluster_bits, -(-end >> header.cluster_bits)
    content = b"".join(_read_cluster(header, reader, number=number) for number in range(first, last))
    start = offset_bytes - (first << header.cluster_bits)
    return content[start : start + end - offset_bytes]


def _read_cluster(header: Qcow2Header, reader: RandomReader, *, number: int) -> bytes:
    l1_index, l2_index = divmod(number, header.l2_entries)
    l1_entry = read_entries(reader, offset_bytes=header.l1_offset_bytes + l1_index * 8, entries=1)[0]
    zeros = bytes(header.cluster_size_bytes)
    if not l1_entry & OFFSET_MASK:
        return zeros
    words = header.l2_entry_bytes // 8
    entry, *bitmaps = read_entries(reader, offset_bytes=(l1_entry & OFFSET_MASK) + l2_index * header.l2_entry_bytes, entries=words)
    if entry & COMPRESSED_FLAG:
        return _read_compressed(header, reader, entry=entry)
    is_zero = header.version == 3 and not header.has_extended_l2 and entry & ZERO_FLAG
    if is_zero or not entry & OFFSET_MASK:
        return zeros
    content = reader.read_at(entry & OFFSET_MASK, header.cluster_size_bytes).ljust(header.cluster_size_bytes, b"\0")
    return _with_holes(content, bitmaps[0], subcluster_bytes=header.subcluster_size_bytes) if bitmaps else content


def _with_holes(content: bytes, bitmap: int, *, subcluster_bytes: int) -> bytes:
    """Blank the subclusters that are not allocated (bits 0-31) or read as zeros (bits 32-63)."""
    parts = []
    for number in range(32):
        is_data = bitmap >> number & 1 and not bitmap >> (32 + number) & 1
        part = content[number * subcluster_bytes : (number + 1) * subcluster_bytes]
        parts.append(part if is_data else bytes(subcluster_bytes))
    return b"".join(parts)


def _read_compressed(header: Qcow2Header, reader: RandomReader, *, entry: int) -> bytes:
    packed = reader.read_at(*header.compressed_range(entry))
    inflate = _inflate_zstd if header.compression_type is CompressionType.ZSTD else _inflate_zlib
    content = inflate(packed, header.cluster_size_bytes)
    if len(content) != header.cluster_size_bytes:
        raise _damaged()
    return content


def _inflate_zlib(packed: bytes, size_bytes: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size_bytes)
    except zlib.error as error:
        raise _damaged() from error


def _inflate_zstd(packed: bytes, size_bytes: int) -> bytes:
    import zstandard  # only for the images that need it: it is not cheap to import

    try:
        return zstandard.ZstdDecompressor().stream_reader(packed).read(size_bytes)
    except zstandard.ZstdError as error:
        raise _damaged() from error


def _damaged() -> VerificationError:
    return VerificationError("a compressed cluster of the image is damaged", reason="CorruptStream")
