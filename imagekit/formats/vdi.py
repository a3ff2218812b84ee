"""VDI: dynamic and fixed disks without a parent.

Source: the header of VirtualBox's format as QEMU's block/vdi.c documents it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from imagekit.base.readers import RandomReader
from imagekit.base.units import KIB, MIB
from imagekit.formats.facts import FormatFacts
from imagekit.formats.tables import count_blocks, read_table, unreadable
from imagekit.image import Finding

_HEADER_BYTES = 512
_HEADER = struct.Struct("<III")  # version, header size, image type
_HEADER_OFFSET = 0x44
_LAYOUT = struct.Struct("<IIIIIIIQIIII16s16s16s16s")
_LAYOUT_OFFSET = 0x154
_VERSION = 0x0001_0001
_SUBFORMATS = {1: "dynamic", 2: "fixed"}
_FIRST_UNUSED_BLOCK = 0xFFFF_FFFE  # discarded; the next one: never written
_MOST_MAP_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    kind: int
    map_offset_bytes: int
    data_offset_bytes: int
    sector_bytes: int
    virtual_size_bytes: int
    block_bytes: int
    extra_bytes: int
    blocks: int
    link: bytes
    parent: bytes


def read_vdi(reader: RandomReader, head: bytes) -> FormatFacts:
    """Return what a VDI image says of itself, and everything that makes it unsafe.

    Raises:
        ImageError: Its header makes no sense (``UnsupportedFormat``).
    """
    header = _parse_header(head)
    findings = _header_findings(header, file_size_bytes=reader.size_bytes)
    used, problems = (0, ()) if findings else _count_blocks(reader, header)
    return FormatFacts(
        virtual_size_bytes=header.virtual_size_bytes,
        allocated_bytes=None if findings else min(used * header.block_bytes, header.virtual_size_bytes),
        cluster_size_bytes=header.block_bytes,
        details={"subformat": _SUBFORMATS.get(header.kind, "unknown")},
        findings=(*findings, *problems),
    )


def _count_blocks(reader: RandomReader, header: _Header) -> tuple[int, tuple[Finding, ...]]:
    table = read_table(reader, offset_bytes=header.map_offset_bytes, entries=header.blocks, entry_bytes=4, byte_order="little")
    starts = (header.data_offset_bytes + block * header.block_bytes for block in table if block < _FIRST_UNUSED_BLOCK)
    return count_blocks(starts, spacing_bytes=header.block_bytes, file_size_bytes=reader.size_bytes)


def _parse_header(head: bytes) -> _Header:
    head = head.ljust(_HEADER_BYTES, b"\0")
    version, _header_bytes, kind = _HEADER.unpack_from(head, _HEADER_OFFSET)
    if version != _VERSION:
        raise unreadable(f"VDI version {version >> 16}.{version & 0xFFFF} is not 1.1")
    fields = _LAYOUT.unpack_from(head, _LAYOUT_OFFSET)
    map_offset, data_offset, _cylinders, _heads, _sectors, sector_bytes, _unused, disk_bytes, block_bytes, extra_bytes = fields[:10]
    blocks, _allocated, _uuid, _snapshot, link, parent = fields[10:]
    if not 4 * KIB <= block_bytes <= 256 * MIB or block_bytes & (block_bytes - 1):
        raise unreadable(f"VDI blocks of {block_bytes} bytes make no sense")
    return _Header(
        kind=kind,
        map_offset_bytes=map_offset,
        data_offset_bytes=data_offset,
        sector_bytes=sector_bytes,
        virtual_size_bytes=-(-disk_bytes // 512) * 512,  # every reader rounds up
        block_bytes=block_bytes,
        extra_bytes=extra_bytes,
        blocks=blocks,
        link=link,
        parent=parent,
    )


def _header_findings(header: _Header, *, file_size_bytes: int) -> list[Finding]:
    found = []
    if header.kind not in _SUBFORMATS:
        found.append(Finding(rule="vdi-subformat", message=f"its image type {header.kind} is neither dynamic nor fixed"))
    if any(header.parent) or any(header.link):
        found.append(Finding(rule="backing-file", message="it names a parent image"))
    if header.sector_bytes != 512:
        found.append(Finding(rule="vdi-sectors", message=f"its sectors have {header.sector_bytes} bytes, not 512"))
    if header.extra_bytes:
        # Some readers skip these bytes and others do not.
        found.append(Finding(rule="vdi-blocks", message=f"each of its blocks has {header.extra_bytes} extra bytes"))
    if header.virtual_size_bytes == 0:
        found.append(Finding(rule="virtual-size", message="its virtual size is 0"))
    if header.blocks * header.block_bytes < header.virtual_size_bytes:
        found.append(Finding(rule="vdi-map", message=f"its map of {header.blocks} blocks is too small for its virtual size"))
    map_end = header.map_offset_bytes + header.blocks * 4
    if header.map_offset_bytes < _HEADER_BYTES or header.blocks * 4 > _MOST_MAP_BYTES or map_end > file_size_bytes:
        found.append(Finding(rule="vdi-map", message=f"its map of {header.blocks} blocks is too large or outside the file"))
    if header.data_offset_bytes < map_end:
        found.append(Finding(rule="table-overlap", message="its blocks lie over its map"))
    return found
