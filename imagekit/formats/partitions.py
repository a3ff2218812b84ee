"""The partition table at the start of a disk: GPT or MBR; pure, from the disk's first bytes.

Sources: UEFI Specification 2.10, section 5.3 (GPT); the classic MBR layout. Logical partitions of an MBR are not
followed: their extended partition is listed.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass

from imagekit.image import Partition

PARTITION_HEAD_BYTES = 64 * 1024

_SECTOR_SIZES = (512, 4096)
_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_MBR_ENTRY = struct.Struct("<B3sB3sII")
_MBR_TABLE_OFFSET = 446
_PROTECTIVE = 0xEE


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionTable:
    """What was found: ``kind`` is ``gpt``, ``mbr`` or ``none``; ``problem`` says why a table's entries are not listed."""

    kind: str
    partitions: tuple[Partition, ...] = ()
    problem: str = ""


def read_partition_table(head: bytes) -> PartitionTable:
    """Return the partition table of the disk that begins with ``head`` (PARTITION_HEAD_BYTES of it)."""
    for sector_bytes in _SECTOR_SIZES:
        if head[sector_bytes : sector_bytes + 8] == b"EFI PART":
            return _read_gpt(head, sector_bytes)
    partitions = _read_mbr(head)
    return PartitionTable(kind="mbr", partitions=partitions) if partitions else PartitionTable(kind="none")


def _read_gpt(head: bytes, sector_bytes: int) -> PartitionTable:
    header = head[sector_bytes : 2 * sector_bytes].ljust(_GPT_HEADER.size, b"\0")
    fields = _GPT_HEADER.unpack_from(header)
    header_bytes, stored_checksum, entries_sector, entries, entry_bytes, entries_checksum = *fields[2:4], *fields[10:14]
    if not _GPT_HEADER.size <= header_bytes <= sector_bytes:
        return PartitionTable(kind="gpt", problem=f"its header length {header_bytes} makes no sense")
    if zlib.crc32(header[:16] + bytes(4) + header[20:header_bytes]) != stored_checksum:
        return PartitionTable(kind="gpt", problem="the checksum of its header does not hold")
    start = entries_sector * sector_bytes
    content = head[start : start + entries * entry_bytes]
    if entry_bytes < _GPT_ENTRY.size or len(content) < entries * entry_bytes:
        return PartitionTable(kind="gpt", problem=f"its {entries} entries of {entry_bytes} bytes are not near its header")
    if zlib.crc32(content) != entries_checksum:
        return PartitionTable(kind="gpt", problem="the checksum of its entries does not hold")
    found = (_parse_gpt_entry(content, number, entry_bytes=entry_bytes, sector_bytes=sector_bytes) for number in range(entries))
    return PartitionTable(kind="gpt", partitions=tuple(partition for partition in found if partition))


def _parse_gpt_entry(content: bytes, number: int, *, entry_bytes: int, sector_bytes: int) -> Partition | None:
    kind, _unique, first, last, _attributes, label = _GPT_ENTRY.unpack_from(content, number * entry_bytes)
    if not any(kind):
        return None
    return Partition(
        number=number + 1,
        start_bytes=first * sector_bytes,
        size_bytes=max(0, last + 1 - first) * sector_bytes,
        kind=str(uuid.UUID(bytes_le=kind)),
        label=label.decode("utf-16-le", "replace").partition("\0")[0],
    )


def _read_mbr(head: bytes) -> tuple[Partition, ...]:
    """Return the primary partitions; none when this is a boot sector without a table, as file systems have it too."""
    if head[510:512] != b"\x55\xaa":
        return ()
    partitions = []
    for number in range(4):
        status, _first, kind, _last, start, sectors = _MBR_ENTRY.unpack_from(head, _MBR_TABLE_OFFSET + number * 16)
        if status not in (0x00, 0x80):
            return ()
        if kind and kind != _PROTECTIVE and sectors:
            partitions.append(Partition(number=number + 1, start_bytes=start * 512, size_bytes=sectors * 512, kind=f"0x{kind:02x}"))
    return tuple(partitions)
