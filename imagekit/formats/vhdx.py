"""VHDX: disks without a parent whose log holds nothing to replay.

Source: [MS-VHDX]. A log is a list of writes to apply before reading; an image that needs one is refused.
"""

from __future__ import annotations

import itertools
import struct
import uuid
from dataclasses import dataclass

from imagekit.base.readers import RandomReader
from imagekit.base.units import KIB, MIB, TIB
from imagekit.formats.crc32c import crc32c
from imagekit.formats.facts import FormatFacts
from imagekit.formats.tables import count_blocks, read_table, unreadable
from imagekit.image import Finding

_HEADER_OFFSETS = (64 * KIB, 128 * KIB)
_HEADER_BYTES = 4 * KIB
_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
_REGION_OFFSETS = (192 * KIB, 256 * KIB)
_REGION_BYTES = 64 * KIB
_ENTRY_BYTES = 32
_MOST_ENTRIES = 2047
_METADATA_BYTES = 64 * KIB  # of the metadata region: its table; the items follow
_MOST_METADATA_BYTES = MIB
_MOST_MAP_BYTES = 16 * MIB
_MOST_VIRTUAL_BYTES = 64 * TIB

_MAP = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_VIRTUAL_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_LOGICAL_SECTOR = uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le
_PHYSICAL_SECTOR = uuid.UUID("cda348c7-445d-4471-9cc9-e9885251c556").bytes_le
_DISK_ID = uuid.UUID("beca12ab-b2e6-4523-93ef-c309e000c746").bytes_le
_PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_KNOWN_ITEMS = {_FILE_PARAMETERS, _VIRTUAL_SIZE, _LOGICAL_SECTOR, _PHYSICAL_SECTOR, _DISK_ID, _PARENT_LOCATOR}

_HAS_PARENT = 2
_REQUIRED_ITEM = 4
_FULLY_PRESENT, _PARTIALLY_PRESENT = 6, 7


@dataclass(frozen=True, slots=True, kw_only=True)
class _Disk:
    block_bytes: int
    virtual_size_bytes: int
    sector_bytes: int
    findings: tuple[Finding, ...]

    @property
    def chunk_blocks(self) -> int:
        """Blocks between two entries of the map that stand for sector bitmaps."""
        return (1 << 23) * self.sector_bytes // self.block_bytes

    @property
    def map_entries(self) -> int:
        blocks = -(-self.virtual_size_bytes // self.block_bytes)
        return blocks + (blocks - 1) // self.chunk_blocks


def read_vhdx(reader: RandomReader) -> FormatFacts:
    """Return what a VHDX image says of itself, and everything that makes it unsafe.

    Raises:
        ImageError: Its headers, region table or metadata make no sense (``UnsupportedFormat``).
    """
    log_findings = _log_findings(reader)
    regions, region_findings = _read_regions(reader)
    disk = _read_metadata(reader, regions)
    findings = [*log_findings, *region_findings, *disk.findings, *_map_bounds(disk, regions)]
    used, problems = (0, ()) if findings else _count_blocks(reader, disk, map_region=regions[_MAP])
    return FormatFacts(
        virtual_size_bytes=disk.virtual_size_bytes,
        allocated_bytes=None if findings else min(used * disk.block_bytes, disk.virtual_size_bytes),
        cluster_size_bytes=disk.block_bytes,
        details={"logical_sector_bytes": disk.sector_bytes},
        findings=(*findings, *problems),
    )


def _is_intact(content: bytes) -> bool:
    """Whether the checksum in bytes 4-8 of a structure holds."""
    return int.from_bytes(content[4:8], "little") == crc32c(content[:4] + bytes(4) + content[8:])


def _log_findings(reader: RandomReader) -> list[Finding]:
    """Look at the current header: the intact one with the higher sequence number."""
    headers = [reader.read_at(offset, _HEADER_BYTES) for offset in _HEADER_OFFSETS]
    intact = [header for header in headers if len(header) == _HEADER_BYTES and header.startswith(b"head") and _is_intact(header)]
    if not intact:
        raise unreadable("neither VHDX header is intact")
    fields = max((_HEADER.unpack_from(header) for header in intact), key=lambda fields: int(fields[2]))
    log_id, version = fields[5], fields[7]
    if version != 1:
        raise unreadable(f"VHDX version {version} is not 1")
    return [Finding(rule="vhdx-log", message="its log is dirty: it was not closed cleanly")] if any(log_id) else []


def _read_regions(reader: RandomReader) -> tuple[dict[bytes, range], list[Finding]]:
    tables = [reader.read_at(offset, _REGION_BYTES) for offset in _REGION_OFFSETS]
    intact = [table for table in tables if len(table) == _REGION_BYTES and table.startswith(b"regi") and _is_intact(table)]
    if not intact:
        raise unreadable("neither VHDX region table is intact")
    entries = int.from_bytes(intact[0][8:12], "little")
    if entries > _MOST_ENTRIES:
        raise unreadable(f"a VHDX region table of {entries} entries makes no sense")
    findings = []
    if len(set(intact)) > 1:
        findings.append(Finding(rule="vhdx-regions", message="its two region tables contradict each other"))
    regions: dict[bytes, range] = {}
    for number in range(entries):
        name, start, size_bytes, required = struct.unpack_from("<16sQII", intact[0], 16 + number * _ENTRY_BYTES)
        if name in regions or (name not in (_MAP, _METADATA) and required):
            findings.append(Finding(rule="vhdx-regions", message="it has a region twice, or needs one that is unknown"))
        if start < MIB or start % MIB or start + size_bytes > reader.size_bytes:
            findings.append(Finding(rule="outside-file", message=f"its region at {start} is outside the file"))
        regions[name] = range(start, start + size_bytes)
    return regions, findings + _overlap_findings(regions)


def _overlap_findings(regions: dict[bytes, range]) -> list[Finding]:
    ordered = sorted(regions.values(), key=lambda region: region.start)
    is_overlapping = any(first.stop > second.start for first, second in itertools.pairwise(ordered))
    return [Finding(rule="table-overlap", message="its regions lie over each other")] if is_overlapping else []


def _read_metadata(reader: RandomReader, regions: dict[bytes, range]) -> _Disk:
    if _METADATA not in regions or _MAP not in regions:
        raise unreadable("the VHDX image has no metadata or no block map")
    region = regions[_METADATA]
    if region.stop > reader.size_bytes:
        raise unreadable("the VHDX metadata region is outside the file")
    content = reader.read_at(region.start, min(len(region), _MOST_METADATA_BYTES))
    entries = int.from_bytes(content[10:12], "little")
    if not content.startswith(b"metadata") or entries > _MOST_ENTRIES or len(content) < _METADATA_BYTES:
        raise unreadable("the VHDX metadata table makes no sense")
    items: dict[bytes, bytes] = {}
    findings = []
    for number in range(entries):
        name, start, size_bytes, flags = struct.unpack_from("<16sIII", content, 32 + number * _ENTRY_BYTES)
        if name in items or (name not in _KNOWN_ITEMS and flags & _REQUIRED_ITEM):
            findings.append(Finding(rule="vhdx-metadata", message="it has a metadata item twice, or needs one that is unknown"))
        if size_bytes and (start < _METADATA_BYTES or start + size_bytes > len(content)):
            findings.append(Finding(rule="vhdx-metadata", message=f"its metadata item at {start} is outside its region"))
        items[name] = content[start : start + size_bytes]
    return _parse_items(items, findings)


def _parse_items(items: dict[bytes, bytes], findings: list[Finding]) -> _Disk:
    parameters, size, sector = (items.get(name, b"") for name in (_FILE_PARAMETERS, _VIRTUAL_SIZE, _LOGICAL_SECTOR))
    if (len(parameters), len(size), len(sector)) != (8, 8, 4):
        raise unreadable("the VHDX metadata lack the disk's size, block size or sector size")
    block_bytes, flags = struct.unpack("<II", parameters)
    sector_bytes = int.from_bytes(sector, "little")
    if not MIB <= block_bytes <= 256 * MIB or block_bytes & (block_bytes - 1) or sector_bytes not in (512, 4096):
        raise unreadable(f"VHDX blocks of {block_bytes} bytes with sectors of {sector_bytes} make no sense")
    virtual_size_bytes = int.from_bytes(size, "little")
    if _PARENT_LOCATOR in items or flags & _HAS_PARENT:
        findings.append(Finding(rule="backing-file", message="it has a parent image"))
    if not 0 < virtual_size_bytes <= _MOST_VIRTUAL_BYTES or virtual_size_bytes % sector_bytes:
        message = f"its virtual size {virtual_size_bytes} is not a positive multiple of its sectors up to 64 TiB"
        findings.append(Finding(rule="virtual-size", message=message))
    return _Disk(
        block_bytes=block_bytes, virtual_size_bytes=virtual_size_bytes, sector_bytes=sector_bytes, findings=tuple(findings)
    )


def _map_bounds(disk: _Disk, regions: dict[bytes, range]) -> list[Finding]:
    needed_bytes = disk.map_entries * 8
    if needed_bytes > _MOST_MAP_BYTES or needed_bytes > len(regions[_MAP]):
        return [Finding(rule="vhdx-map", message=f"its block map of {needed_bytes} bytes is too large or larger than its region")]
    return []


def _count_blocks(reader: RandomReader, disk: _Disk, *, map_region: range) -> tuple[int, tuple[Finding, ...]]:
    table = read_table(reader, offset_bytes=map_region.start, entries=disk.map_entries, entry_bytes=8, byte_order="little")
    period = disk.chunk_blocks + 1
    starts = (
        entry >> 20 << 20
        for index, entry in enumerate(table)
        if entry & 7 in (_FULLY_PRESENT, _PARTIALLY_PRESENT) and index % period != disk.chunk_blocks
    )
    return count_blocks(starts, spacing_bytes=disk.block_bytes, file_size_bytes=reader.size_bytes)
