"""What an image is and whether it is safe: the only place that decides a format; every later ``-f`` repeats its verdict.

No image is opened by another program before this, and nothing an image names is ever opened here. A file inside gzip,
xz, zstd or bzip2 is read by decompressing it as a stream: once for its length and its ends, and once more for tables
that lie in between; nothing is written and memory stays bounded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import assert_never

from imagekit.base.errors import ImageError
from imagekit.base.files import open_regular, translate_os_error
from imagekit.base.readers import RandomReader
from imagekit.formats.detect import HEAD_BYTES, TAIL_BYTES, detect_format
from imagekit.formats.facts import FormatFacts
from imagekit.formats.qcow2 import header_findings, parse_header
from imagekit.formats.qcow2_walk import walk_tables
from imagekit.image import Compression, DiskFormat, ImageInfo


def inspect_file(path: Path) -> ImageInfo:
    """Look at the image in a regular file or block device; its last part is never followed as a link.

    Raises:
        NotFoundError: There is no such file.
        ImageError: It is several formats at once, of a kind that is refused by name, or cannot be read as what it claims to be.
        VerificationError: A compressed file is damaged.
    """
    descriptor = open_regular(path)
    try:
        return inspect_reader(_DescriptorReader(descriptor))
    except OSError as error:
        raise translate_os_error(error, doing=f"read {path}") from error
    finally:
        os.close(descriptor)


def inspect_reader(reader: RandomReader) -> ImageInfo:
    """Look at the image that ``reader`` reads; see inspect_file."""
    head = reader.read_at(0, HEAD_BYTES)
    tail = reader.read_at(max(0, reader.size_bytes - TAIL_BYTES), TAIL_BYTES)
    image_format = detect_format(head, tail=tail)
    facts = _read_facts(image_format, reader, head)
    return ImageInfo(
        format=image_format,
        compression=Compression.NONE,
        file_size_bytes=reader.size_bytes,
        virtual_size_bytes=facts.virtual_size_bytes,
        allocated_bytes=facts.allocated_bytes,
        cluster_size_bytes=facts.cluster_size_bytes,
        compressed_share=facts.compressed_share,
        details=facts.details,
        findings=facts.findings,
    )


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


def _read_facts(image_format: DiskFormat, reader: RandomReader, head: bytes) -> FormatFacts:
    match image_format:
        case DiskFormat.RAW | DiskFormat.ISO:
            return FormatFacts(virtual_size_bytes=reader.size_bytes)
        case DiskFormat.QCOW2:
            return _read_qcow2(reader, head)
        case DiskFormat.VMDK | DiskFormat.VHD | DiskFormat.VHDX | DiskFormat.VDI:
            raise ImageError(f"{image_format.name} is not supported")
        case _:
            assert_never(image_format)


def _read_qcow2(reader: RandomReader, head: bytes) -> FormatFacts:
    header = parse_header(head)
    findings = header_findings(header, file_size_bytes=reader.size_bytes)
    census = None if findings else walk_tables(header, reader)
    return FormatFacts(
        virtual_size_bytes=header.virtual_size_bytes,
        cluster_size_bytes=header.cluster_size_bytes,
        allocated_bytes=census.allocated_bytes if census else None,
        compressed_share=census.compressed_share if census else None,
        details={"version": header.version, "compression_type": header.compression_type, "extended_l2": header.has_extended_l2},
        findings=findings + (census.findings if census else ()),
    )


class _DescriptorReader:
    """Bytes of an open file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size_bytes = os.lseek(descriptor, 0, os.SEEK_END)

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        parts: list[bytes] = []
        while size_bytes > 0 and (part := os.pread(self._descriptor, size_bytes, offset_bytes)):
            parts.append(part)
            offset_bytes += len(part)
            size_bytes -= len(part)
        return b"".join(parts)
