"""VMDK: only one self-contained file, ``monolithicSparse`` or ``streamOptimized``.

Source: VMware, Virtual Disk Format 5.0. The descriptor is text that may name other files as the disk's content, so
every extent but the file itself, and every parent, is refused.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from imagekit.base.readers import RandomReader
from imagekit.base.units import KIB, MIB, TIB
from imagekit.formats.facts import FormatFacts
from imagekit.formats.tables import count_blocks, read_table, unreadable
from imagekit.image import Finding

_SECTOR_BYTES = 512
_HEADER = struct.Struct("<4sIIQQQQIQQQ5sH")
_MAGIC = b"KDMV"
_GRAIN_DIRECTORY_AT_END = 0xFFFF_FFFF_FFFF_FFFF
_FLAG_COMPRESSED = 1 << 16
_LINE_ENDS = b"\n \r\n"
_FOOTER_MARKER = 3

_ALLOWED_SUBFORMATS = ("monolithicSparse", "streamOptimized")
_MOST_DESCRIPTOR_BYTES = 20 * KIB
_MOST_DIRECTORY_BYTES = 4 * MIB
_MOST_TABLE_BYTES = 256 * MIB  # 4 TiB of data in 64 KiB grains
_MOST_VIRTUAL_BYTES = 64 * TIB
_MOST_GRAIN_SECTORS = 1 << 12  # a reader holds several compressed grains in memory, whole

_EXTENT = re.compile(
    r"(?P<access>RW|RDONLY|NOACCESS)\s+(?P<sectors>\d+)\s+(?P<kind>\w+)(?:\s+\"(?P<name>[^\"]*)\"(?:\s+\d+)?)?\s*", re.IGNORECASE
)
_EXTENT_START = re.compile(r"(RW|RDONLY|NOACCESS)\b", re.IGNORECASE)
_OTHER_LINE = re.compile(r"#.*|ddb.*|[^\s=]+=.*|", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    version: int
    flags: int
    capacity_sectors: int
    grain_sectors: int
    descriptor_sector: int
    descriptor_sectors: int
    entries_in_table: int
    directory_sector: int
    compression: int

    @property
    def grain_bytes(self) -> int:
        return self.grain_sectors * _SECTOR_BYTES

    @property
    def directory_entries(self) -> int:
        return -(-self.capacity_sectors // (self.grain_sectors * self.entries_in_table))

    def names_same_disk(self, footer: _Header) -> bool:
        """Whether the footer differs from this header only where it must: in the place of the grain directory."""
        return dataclasses.replace(footer, directory_sector=self.directory_sector) == self


def is_plain_name(name: str) -> bool:
    """Whether a descriptor may call its extent so: a file beside it, and nothing that a reader takes for more than that."""
    return bool(name) and name.isascii() and name.isprintable() and not set(name) & set('/\\:"') and name not in (".", "..")


def read_vmdk(reader: RandomReader, head: bytes) -> FormatFacts:
    """Return what a VMDK image says of itself, and everything that makes it unsafe.

    Raises:
        ImageError: Its header makes no sense (``UnsupportedFormat``).
    """
    if not head.startswith(_MAGIC):
        return _text_only(head)
    header = _parse_header(head)
    descriptor = _read_descriptor(reader, header)
    findings = [*_descriptor_findings(descriptor, header), *_header_findings(header)]
    if header.directory_sector == _GRAIN_DIRECTORY_AT_END:
        footer, contradictions = _read_footer(reader, header)
        findings += contradictions
    else:
        footer = header
    grains, problems = (None, ()) if findings else _count_grains(reader, footer)
    is_compressed = bool(header.flags & _FLAG_COMPRESSED)
    return FormatFacts(
        virtual_size_bytes=header.capacity_sectors * _SECTOR_BYTES,
        allocated_bytes=None if grains is None else min(grains * header.grain_bytes, header.capacity_sectors * _SECTOR_BYTES),
        cluster_size_bytes=header.grain_bytes,
        compressed_share=float(is_compressed) if grains else None,
        details={"version": header.version, "subformat": _value(descriptor, "createType")},
        findings=(*findings, *problems),
    )


def _text_only(head: bytes) -> FormatFacts:
    """Refuse a descriptor that stands alone, and the old COWD disks: their content is in other files."""
    subformat = _value(head[:_MOST_DESCRIPTOR_BYTES].decode("utf-8", "replace"), "createType")
    message = f"its subformat {subformat!r} keeps the disk in other files; only {' and '.join(_ALLOWED_SUBFORMATS)} are allowed"
    return FormatFacts(
        virtual_size_bytes=0, details={"subformat": subformat}, findings=(Finding(rule="vmdk-subformat", message=message),)
    )


def _parse_header(content: bytes) -> _Header:
    fields = _HEADER.unpack_from(content.ljust(_SECTOR_BYTES, b"\0"))
    magic, version, flags, capacity, grain, descriptor, descriptor_sectors, entries, _spare, directory, _overhead = fields[:11]
    line_ends, compression = fields[11:]
    if magic != _MAGIC or version not in (1, 2, 3):
        raise unreadable(f"VMDK version {version} is not 1, 2 or 3")
    if line_ends[1:] != _LINE_ENDS:
        raise unreadable("the line ends in the VMDK header were changed: it was sent as text")
    if not 1 <= grain <= _MOST_GRAIN_SECTORS or grain & (grain - 1) or not 1 <= entries <= 512:
        raise unreadable(f"VMDK grains of {grain} sectors, {entries} to a table, make no sense")
    return _Header(
        version=version,
        flags=flags,
        capacity_sectors=capacity,
        grain_sectors=grain,
        descriptor_sector=descriptor,
        descriptor_sectors=descriptor_sectors,
        entries_in_table=entries,
        directory_sector=directory,
        compression=compression,
    )


def _read_descriptor(reader: RandomReader, header: _Header) -> str:
    size_bytes = header.descriptor_sectors * _SECTOR_BYTES
    if header.descriptor_sector != 1 or not 0 < size_bytes <= _MOST_DESCRIPTOR_BYTES:
        return ""
    # Readers go on to the first NUL, whatever the header says of the length.
    content = reader.read_at(_SECTOR_BYTES, _MOST_DESCRIPTOR_BYTES)
    return content.partition(b"\0")[0].decode("ascii", "replace")


def _descriptor_findings(descriptor: str, header: _Header) -> list[Finding]:
    if not descriptor:
        message = f"it has no descriptor of at most {_MOST_DESCRIPTOR_BYTES} bytes in its second sector"
        return [Finding(rule="vmdk-descriptor", message=message)]
    found = []
    lines = [line.strip() for line in descriptor.splitlines()]
    if strange := [line for line in lines if not line.isascii() or not (_EXTENT_START.match(line) or _OTHER_LINE.fullmatch(line))]:
        # What we do not understand another reader may.
        found.append(Finding(rule="vmdk-descriptor", message=f"its descriptor has a line of no known kind: {strange[0][:200]!r}"))
    subformats = _values(descriptor, "createType")
    if len(subformats) != 1 or subformats[0] not in _ALLOWED_SUBFORMATS:
        message = f"its subformat {', '.join(subformats)!r} is not one of {' and '.join(_ALLOWED_SUBFORMATS)}"
        found.append(Finding(rule="vmdk-subformat", message=message))
    parents = {parent.lower() for parent in _values(descriptor, "parentCID")}
    if parents - {"ffffffff"} or _values(descriptor, "parentFileNameHint"):
        found.append(Finding(rule="backing-file", message="it has a parent image"))
    return found + _extent_findings(descriptor, header)


def _extent_findings(descriptor: str, header: _Header) -> list[Finding]:
    lines = [line.strip() for line in descriptor.splitlines() if _EXTENT_START.match(line.strip())]
    if len(lines) != 1:
        return [Finding(rule="vmdk-extent", message=f"it has {len(lines)} extents instead of one")]
    extent = _EXTENT.fullmatch(lines[0])
    if extent is None or extent["kind"].upper() != "SPARSE" or not is_plain_name(extent["name"] or ""):
        return [Finding(rule="vmdk-extent", message=f"its extent is not this file itself: {lines[0][:200]!r}")]
    if int(extent["sectors"]) != header.capacity_sectors:
        message = f"its extent has {extent['sectors']} sectors, its header says {header.capacity_sectors}"
        return [Finding(rule="vmdk-extent", message=message)]
    return []


def _header_findings(header: _Header) -> list[Finding]:
    found = []
    capacity_bytes = header.capacity_sectors * _SECTOR_BYTES
    if not 0 < capacity_bytes <= _MOST_VIRTUAL_BYTES:
        # Readers take an image without a capacity for a bare descriptor and open what it names.
        found.append(Finding(rule="virtual-size", message=f"its virtual size {capacity_bytes} is not from 512 bytes to 64 TiB"))
    if header.compression not in (0, 1):
        found.append(Finding(rule="compression-type", message=f"its compression {header.compression} is unknown"))
    return found


def _read_footer(reader: RandomReader, header: _Header) -> tuple[_Header, list[Finding]]:
    """Return the header at the end of a stream-optimized image: footer marker, footer, end-of-stream marker, a sector each."""
    wrong = [Finding(rule="vmdk-footer", message="its footer is missing or contradicts its header")]
    end = reader.read_at(max(0, reader.size_bytes - 3 * _SECTOR_BYTES), 3 * _SECTOR_BYTES)
    marker = struct.pack("<QII", 1, 0, _FOOTER_MARKER).ljust(_SECTOR_BYTES, b"\0")
    if len(end) < 3 * _SECTOR_BYTES or not end.startswith(marker):
        return header, wrong
    if not end[_SECTOR_BYTES:].startswith(_MAGIC) or any(end[2 * _SECTOR_BYTES :]):
        return header, wrong
    footer = _parse_header(end[_SECTOR_BYTES:])
    if not header.names_same_disk(footer) or footer.directory_sector == _GRAIN_DIRECTORY_AT_END:
        return header, wrong
    return footer, []


def _count_grains(reader: RandomReader, header: _Header) -> tuple[int | None, tuple[Finding, ...]]:
    """Return how many grains have content, and what is wrong with where they are."""
    entries, size_bytes = header.directory_entries, reader.size_bytes
    directory_bytes = header.directory_sector * _SECTOR_BYTES
    if entries * 4 > _MOST_DIRECTORY_BYTES or directory_bytes + entries * 4 > size_bytes:
        return None, (Finding(rule="vmdk-directory", message="its grain directory is too large or outside the file"),)
    directory = read_table(reader, offset_bytes=directory_bytes, entries=entries, entry_bytes=4, byte_order="little")
    tables = sorted(sector * _SECTOR_BYTES for sector in directory if sector)
    table_bytes = -(-header.entries_in_table * 4 // _SECTOR_BYTES) * _SECTOR_BYTES
    if len(tables) * table_bytes > _MOST_TABLE_BYTES:
        return None, (Finding(rule="vmdk-directory", message=f"it has {len(tables)} grain tables, more than are looked at"),)
    _tables, problems = count_blocks(tables, spacing_bytes=table_bytes, file_size_bytes=size_bytes)
    if problems:
        return None, problems
    spacing_bytes = _SECTOR_BYTES if header.flags & _FLAG_COMPRESSED else header.grain_bytes
    return count_blocks(_grain_starts(reader, header, tables=tables), spacing_bytes=spacing_bytes, file_size_bytes=size_bytes)


def _grain_starts(reader: RandomReader, header: _Header, *, tables: list[int]) -> Iterator[int]:
    for table in tables:
        sectors = read_table(reader, offset_bytes=table, entries=header.entries_in_table, entry_bytes=4, byte_order="little")
        yield from (sector * _SECTOR_BYTES for sector in sectors if sector > 1)  # 1 stands for a grain of zeros


def _values(descriptor: str, key: str) -> list[str]:
    pattern = rf"^\s*{key}\s*=\s*\"?([^\"\r\n]*?)\"?\s*$"
    return [match[1] for match in re.finditer(pattern, descriptor, re.MULTILINE | re.IGNORECASE)]


def _value(descriptor: str, key: str) -> str:
    value = next(iter(_values(descriptor, key)), "")
    return value if value.isprintable() and value else "unknown"
