"""What an image is and whether it is safe: the only place that decides a format; every later ``-f`` repeats its verdict.

No image is opened by another program before this, and nothing an image names is ever opened here. A file inside gzip,
xz, zstd or bzip2 is read by decompressing it as a stream: once for its length and its ends, and once more for tables
that lie in between; nothing is written and memory stays bounded.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path
from typing import assert_never

from imagekit.base.errors import ImageError
from imagekit.base.files import opened_regular, translate_os_error
from imagekit.base.readers import RandomReader
from imagekit.compression import detect_compression, open_decompressed
from imagekit.formats.compressed import DecompressedReader, ReaderStream
from imagekit.formats.detect import HEAD_BYTES, TAIL_BYTES, detect_format
from imagekit.formats.facts import FormatFacts
from imagekit.formats.iso import read_iso
from imagekit.formats.partitions import PARTITION_HEAD_BYTES, read_partition_table
from imagekit.formats.qcow2 import INCOMPATIBLE_DIRTY, Qcow2Header, header_findings, parse_header
from imagekit.formats.qcow2_bitmaps import bitmap_findings
from imagekit.formats.qcow2_guest import read_guest
from imagekit.formats.qcow2_walk import walk_tables
from imagekit.formats.raw import read_raw
from imagekit.formats.vdi import read_vdi
from imagekit.formats.vhd import read_vhd
from imagekit.formats.vhdx import read_vhdx
from imagekit.formats.vmdk import read_vmdk
from imagekit.image import Compression, DiskFormat, ImageInfo
from imagekit.stream.file_reader import FileReader


def inspect_file(path: Path) -> ImageInfo:
    """Look at the image in a regular file or block device; its last part is never followed as a link.

    Raises:
        NotFoundError: There is no such file.
        ImageError: It is several formats at once, of a kind that is refused by name, or cannot be read as what it claims to be.
        VerificationError: A compressed file, or a compressed cluster of the disk's first bytes, is damaged.
    """
    with opened_regular(path) as descriptor:
        try:
            status = os.fstat(descriptor)
            stored_bytes = status.st_blocks * 512 if stat.S_ISREG(status.st_mode) else None
            return inspect_reader(FileReader(descriptor), stored_bytes=stored_bytes)
        except OSError as error:
            raise translate_os_error(error, doing=f"read {path}") from error


def inspect_reader(reader: RandomReader, *, stored_bytes: int | None = None) -> ImageInfo:
    """Look at the image that ``reader`` reads; see inspect_file.

    Args:
        stored_bytes: What the file takes on its file system, holes left out; what a raw disk has allocated.
    """
    compression = detect_compression(reader.read_at(0, HEAD_BYTES))
    if compression is Compression.NONE:
        return _inspect_plain(reader, stored_bytes=stored_bytes)
    inner = DecompressedReader(lambda: open_decompressed(ReaderStream(reader), compression))
    nested = detect_compression(inner.read_at(0, HEAD_BYTES))
    if nested is not Compression.NONE:
        raise ImageError(
            f"the file is compressed twice ({compression}, and {nested} inside)",
            hint="decompress it once; only one layer of compression is looked through",
        )
    info = _inspect_plain(inner, can_jump=False)
    return dataclasses.replace(info, compression=compression, file_size_bytes=reader.size_bytes)


def require_safe(info: ImageInfo, *, what: str) -> None:
    """Raise ImageError (``UnsafeImage``) with everything that was found against the image called ``what``."""
    if info.is_safe:
        return
    reasons = "; ".join(finding.message for finding in info.findings)
    raise ImageError(
        f"{what} is not a safe {info.format.name} image: {reasons}",
        reason="UnsafeImage",
        hint="convert it where it was made into one self-contained qcow2 or raw file",
    )


def _inspect_plain(reader: RandomReader, *, stored_bytes: int | None = None, can_jump: bool = True) -> ImageInfo:
    head = reader.read_at(0, HEAD_BYTES)
    tail = reader.read_at(max(0, reader.size_bytes - TAIL_BYTES), TAIL_BYTES)
    image_format = detect_format(head, tail=tail)
    facts = _read_facts(image_format, reader, head=head, tail=tail, stored_bytes=stored_bytes)
    start = _disk_start(image_format, reader, facts=facts, head=head, can_jump=can_jump)
    table = None if start is None else read_partition_table(start)
    problem: dict[str, str | int | bool] = {"partition_table_problem": table.problem} if table and table.problem else {}
    return ImageInfo(
        format=image_format,
        file_size_bytes=reader.size_bytes,
        virtual_size_bytes=facts.virtual_size_bytes,
        allocated_bytes=facts.allocated_bytes,
        cluster_size_bytes=facts.cluster_size_bytes,
        compressed_share=facts.compressed_share,
        partition_table=table.kind if table else None,
        partitions=table.partitions if table else (),
        details=facts.details | problem,
        findings=facts.findings,
    )


def _read_facts(
    image_format: DiskFormat, reader: RandomReader, *, head: bytes, tail: bytes, stored_bytes: int | None
) -> FormatFacts:
    match image_format:
        case DiskFormat.RAW:
            return read_raw(reader.size_bytes, stored_bytes=stored_bytes)
        case DiskFormat.ISO:
            return read_iso(reader, head)
        case DiskFormat.QCOW2:
            return _read_qcow2(reader, head)
        case DiskFormat.VMDK:
            return read_vmdk(reader, head)
        case DiskFormat.VHD:
            return read_vhd(reader, head=head, tail=tail)
        case DiskFormat.VHDX:
            return read_vhdx(reader)
        case DiskFormat.VDI:
            return read_vdi(reader, head)
        case _:
            assert_never(image_format)


def _disk_start(image_format: DiskFormat, reader: RandomReader, *, facts: FormatFacts, head: bytes, can_jump: bool) -> bytes | None:
    """Return the first bytes of the guest's disk; None where that would mean to decode the image."""
    if image_format in (DiskFormat.RAW, DiskFormat.ISO):
        return head[:PARTITION_HEAD_BYTES].ljust(PARTITION_HEAD_BYTES, b"\0")
    if image_format is DiskFormat.QCOW2 and can_jump and not facts.findings:
        start = read_guest(parse_header(head), reader, offset_bytes=0, size_bytes=PARTITION_HEAD_BYTES)
        return start.ljust(PARTITION_HEAD_BYTES, b"\0")
    return None


def _read_qcow2(reader: RandomReader, head: bytes) -> FormatFacts:
    header = parse_header(head)
    findings = header_findings(header, file_size_bytes=reader.size_bytes)
    findings += () if findings else bitmap_findings(header, reader)
    census = None if findings else walk_tables(header, reader)
    return FormatFacts(
        virtual_size_bytes=header.virtual_size_bytes,
        cluster_size_bytes=header.cluster_size_bytes,
        allocated_bytes=census.allocated_bytes if census else None,
        compressed_share=census.compressed_share if census else None,
        details=_describe_qcow2(header),
        findings=findings + (census.findings if census else ()),
    )


def _describe_qcow2(header: Qcow2Header) -> dict[str, str | int | bool]:
    details: dict[str, str | int | bool] = {
        "version": header.version,
        "compression_type": header.compression_type.value,
        "extended_l2": header.has_extended_l2,
        "dirty": bool(header.incompatible_features & INCOMPATIBLE_DIRTY),
    }
    # Features that a reader may ignore are not held against an image, but they are told.
    optional = {"compatible_features": header.compatible_features, "autoclear_features": header.autoclear_features}
    return details | {name: bits for name, bits in optional.items() if bits}
