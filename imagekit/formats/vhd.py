"""VHD (``vpc`` to qemu-img): fixed and dynamic disks; differencing disks are refused.

Source: Microsoft, Virtual Hard Disk Image Format Specification 1.0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from imagekit.base.readers import RandomReader
from imagekit.base.units import MIB
from imagekit.formats.facts import FormatFacts
from imagekit.formats.tables import count_blocks, read_table, unreadable
from imagekit.image import Finding

FOOTER_BYTES = 512
_COOKIE = b"conectix"
_FOOTER = struct.Struct(">8sIIQI4sI4sQQIII")
_CHECKSUM_OFFSET = 64
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_KINDS = {_FIXED: "fixed", _DYNAMIC: "dynamic", _DIFFERENCING: "differencing"}

_SPARSE_HEADER = struct.Struct(">8sQQIIII")
_SPARSE_HEADER_BYTES = 1024
_SPARSE_CHECKSUM_OFFSET = 36
_PARENT = slice(40, 768)  # unique id, time stamp, name and locators of the parent
_UNUSED_BLOCK = 0xFFFF_FFFF
_MOST_MAP_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class _Footer:
    data_offset_bytes: int
    virtual_size_bytes: int
    kind: int


def read_vhd(reader: RandomReader, *, head: bytes, tail: bytes) -> FormatFacts:
    """Return what a VHD image says of itself, and everything that makes it unsafe.

    Raises:
        ImageError: Its footer or sparse header makes no sense (``UnsupportedFormat``).
    """
    has_copy = head.startswith(_COOKIE)
    content = head[:FOOTER_BYTES] if has_copy else tail[-FOOTER_BYTES:]
    footer = _parse_footer(content)
    findings = _footer_findings(footer, content, file_size_bytes=reader.size_bytes)
    if has_copy != (footer.kind != _FIXED) or (has_copy and tail != content):
        findings.append(Finding(rule="vhd-footer", message="its footer and the copy at its start contradict each other"))
    facts = FormatFacts(
        virtual_size_bytes=footer.virtual_size_bytes,
        details={"subformat": _KINDS.get(footer.kind, "unknown")},
        findings=tuple(findings),
    )
    return facts if findings or footer.kind == _FIXED else _read_dynamic(reader, footer)


def checksum(content: bytes, *, field_offset: int = _CHECKSUM_OFFSET) -> int:
    """Return the checksum of a VHD structure: all bytes but the field's own, summed and inverted."""
    return ~(sum(content) - sum(content[field_offset : field_offset + 4])) & 0xFFFF_FFFF


def _parse_footer(content: bytes) -> _Footer:
    if len(content) < FOOTER_BYTES or not content.startswith(_COOKIE):
        raise unreadable("the VHD footer is not 512 bytes long at the end of the file")
    fields = _FOOTER.unpack_from(content)
    return _Footer(data_offset_bytes=fields[3], virtual_size_bytes=fields[9], kind=fields[11])


def _footer_findings(footer: _Footer, content: bytes, *, file_size_bytes: int) -> list[Finding]:
    found = []
    stored = int.from_bytes(content[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 4], "big")
    if stored != checksum(content):
        found.append(Finding(rule="vhd-checksum", message="the checksum of its footer does not hold"))
    if footer.kind == _DIFFERENCING:
        found.append(Finding(rule="backing-file", message="it is a differencing disk, which has a parent image"))
    elif footer.kind not in (_FIXED, _DYNAMIC):
        found.append(Finding(rule="vhd-subformat", message=f"its disk type {footer.kind} is neither fixed nor dynamic"))
    if footer.virtual_size_bytes == 0 or footer.virtual_size_bytes % 512:
        message = f"its virtual size {footer.virtual_size_bytes} is not a positive multiple of 512 bytes"
        found.append(Finding(rule="virtual-size", message=message))
    elif footer.kind == _FIXED and footer.virtual_size_bytes != file_size_bytes - FOOTER_BYTES:
        message = (
            f"its virtual size {footer.virtual_size_bytes} is not that of the file of {file_size_bytes} bytes without its footer"
        )
        found.append(Finding(rule="virtual-size", message=message))
    return found


def _read_dynamic(reader: RandomReader, footer: _Footer) -> FormatFacts:
    is_inside = footer.data_offset_bytes + _SPARSE_HEADER_BYTES <= reader.size_bytes
    header = reader.read_at(footer.data_offset_bytes, _SPARSE_HEADER_BYTES) if is_inside else b""
    if len(header) < _SPARSE_HEADER_BYTES or not header.startswith(b"cxsparse"):
        raise unreadable("the VHD sparse header is not where the footer says")
    return _read_sparse(reader, footer, header=header)


def _read_sparse(reader: RandomReader, footer: _Footer, *, header: bytes) -> FormatFacts:
    _cookie, _next, map_offset_bytes, _version, blocks, block_bytes, stored = _SPARSE_HEADER.unpack_from(header)
    if block_bytes < 4096 or block_bytes & (block_bytes - 1):
        raise unreadable(f"VHD blocks of {block_bytes} bytes make no sense")
    findings = []
    if stored != checksum(header, field_offset=_SPARSE_CHECKSUM_OFFSET):
        findings.append(Finding(rule="vhd-checksum", message="the checksum of its sparse header does not hold"))
    if any(header[_PARENT]):
        findings.append(Finding(rule="backing-file", message="it names a parent image"))
    if blocks * block_bytes < footer.virtual_size_bytes:
        findings.append(Finding(rule="vhd-map", message=f"its map of {blocks} blocks is too small for its virtual size"))
    if blocks * 4 > _MOST_MAP_BYTES or map_offset_bytes + blocks * 4 > reader.size_bytes:
        findings.append(Finding(rule="vhd-map", message=f"its map of {blocks} blocks is too large or outside the file"))
    used, problems = (
        (0, ()) if findings else _count_blocks(reader, map_offset_bytes=map_offset_bytes, blocks=blocks, block_bytes=block_bytes)
    )
    return FormatFacts(
        virtual_size_bytes=footer.virtual_size_bytes,
        allocated_bytes=None if findings else min(used * block_bytes, footer.virtual_size_bytes),
        cluster_size_bytes=block_bytes,
        details={"subformat": _KINDS[_DYNAMIC]},
        findings=(*findings, *problems),
    )


def _count_blocks(reader: RandomReader, *, map_offset_bytes: int, blocks: int, block_bytes: int) -> tuple[int, tuple[Finding, ...]]:
    table = read_table(reader, offset_bytes=map_offset_bytes, entries=blocks, entry_bytes=4, byte_order="big")
    starts = (sector * 512 for sector in table if sector != _UNUSED_BLOCK)
    return count_blocks(starts, spacing_bytes=block_bytes, file_size_bytes=reader.size_bytes)
