"""The qcow2 header and its safety rules; pure, from bytes.

Source: docs/interop/qcow2.txt of QEMU. Everything in a header is untrusted: ``parse_header`` refuses what cannot be
read at all, ``header_findings`` says everything else that makes an image unsafe, so that a reader hears of all of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from imagekit.base.errors import ImageError
from imagekit.base.units import MIB, format_size
from imagekit.image import Finding

MAGIC = b"QFI\xfb"
MAX_L1_BYTES = 32 * MIB
MAX_REFCOUNT_TABLE_BYTES = 8 * MIB
MAX_BITMAP_DIRECTORY_BYTES = MIB

# Fields of an L1 and an L2 entry.
COMPRESSED_FLAG = 1 << 62
ZERO_FLAG = 1
OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00

INCOMPATIBLE_DIRTY = 1 << 0
INCOMPATIBLE_CORRUPT = 1 << 1
INCOMPATIBLE_DATA_FILE = 1 << 2
INCOMPATIBLE_COMPRESSION = 1 << 3
INCOMPATIBLE_EXTENDED_L2 = 1 << 4
_KNOWN_INCOMPATIBLE = 0b11111

_EXTENSION_END = 0
_EXTENSION_BITMAPS = 0x23852875
_EXTENSION_ENCRYPTION = 0x0537BE77
_EXTENSION_DATA_FILE = 0x44415441

_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_BITMAPS = struct.Struct(">IIQQ")
_V2_BYTES = 72
_V3_BYTES = 104
_LONGEST_NAME_BYTES = 1023
_MOST_EXTENSIONS = 64


class CompressionType(StrEnum):
    """How compressed clusters are compressed."""

    ZLIB = "zlib"
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderExtension:
    """One header extension; ``content`` is cut where the bytes that were looked at end, ``size_bytes`` is not."""

    kind: int
    size_bytes: int
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Qcow2Header:
    """The header of a qcow2 image, as it claims to be.

    Attributes:
        backing_file: Name of the backing file; words in parentheses when there is one without a readable name; else empty.
        data_file: The same for the external data file.
        encryption_method: 0 none, 1 AES, 2 LUKS.
        extensions: Header extensions up to the first that does not fit, which is still in the tuple.
    """

    version: int
    cluster_bits: int
    virtual_size_bytes: int
    l1_offset_bytes: int
    l1_entries: int
    has_extended_l2: bool
    compression_type: CompressionType
    refcount_table_offset_bytes: int
    refcount_table_clusters: int
    refcount_order: int
    snapshot_count: int
    header_length_bytes: int
    incompatible_features: int
    compatible_features: int = 0
    autoclear_features: int = 0
    backing_file: str = ""
    data_file: str = ""
    encryption_method: int = 0
    extensions: tuple[HeaderExtension, ...] = ()

    @property
    def cluster_size_bytes(self) -> int:
        """Size of a cluster, 512 B to 2 MiB."""
        return 1 << self.cluster_bits

    @property
    def l2_entry_bytes(self) -> int:
        """Size of an L2 entry: 16 with extended L2, else 8."""
        return 16 if self.has_extended_l2 else 8

    @property
    def l2_entries(self) -> int:
        """Entries of an L2 table, which fills one cluster."""
        return self.cluster_size_bytes // self.l2_entry_bytes

    @property
    def subcluster_size_bytes(self) -> int:
        """Size of what one bit of an extended L2 entry speaks of; the cluster's without extended L2."""
        return self.cluster_size_bytes // 32 if self.has_extended_l2 else self.cluster_size_bytes

    @property
    def l2_table_guest_bytes(self) -> int:
        """Bytes of the guest's disk that one L2 table maps."""
        return self.l2_entries * self.cluster_size_bytes

    @property
    def needed_l1_entries(self) -> int:
        """Entries that an L1 table for this virtual size has."""
        return -(-self.virtual_size_bytes // self.l2_table_guest_bytes)

    @property
    def bitmap_directory(self) -> range | None:
        """Where the directory of persistent bitmaps lies in the file; None without a readable one."""
        for extension in self.extensions:
            if extension.kind == _EXTENSION_BITMAPS and len(extension.content) == _BITMAPS.size:
                _count, _reserved, size_bytes, offset_bytes = _BITMAPS.unpack(extension.content)
                return range(offset_bytes, offset_bytes + size_bytes)
        return None

    def compressed_range(self, entry: int) -> tuple[int, int]:
        """Return offset and size of the bytes that hold the compressed cluster of an L2 entry; the last sector may be cut."""
        offset_bits = 62 - (self.cluster_bits - 8)
        offset_bytes = entry & ((1 << offset_bits) - 1)
        more_sectors = (entry & (COMPRESSED_FLAG - 1)) >> offset_bits
        return offset_bytes, (more_sectors + 1) * 512 - offset_bytes % 512


def parse_header(head: bytes) -> Qcow2Header:
    """Return the header of the image that begins with ``head``; short heads are read as if zeros followed.

    Raises:
        ImageError: These are not qcow2 bytes, or nothing that follows could be found with them (``UnsupportedFormat``).
    """
    head = head.ljust(512, b"\0")
    fields = _V2.unpack_from(head)
    magic, version, backing_offset, backing_bytes, cluster_bits, virtual_size_bytes, encryption_method, l1_entries = fields[:8]
    l1_offset, refcount_offset, refcount_clusters, snapshot_count, _snapshots_offset = fields[8:]
    _require(magic == MAGIC, "it has no qcow2 magic")
    _require(version in (2, 3), f"qcow2 version {version} is not 2 or 3")
    _require(9 <= cluster_bits <= 21, f"qcow2 cluster_bits {cluster_bits} is outside 9..21")
    incompatible, compatible, autoclear, refcount_order, header_bytes = _V3.unpack_from(head, _V2_BYTES)
    if version == 2:
        incompatible, compatible, autoclear, refcount_order, header_bytes = 0, 0, 0, 4, _V2_BYTES
    else:
        _require_header_length(header_bytes, cluster_size_bytes=1 << cluster_bits)
    extensions_end = min(1 << cluster_bits, backing_offset or 1 << cluster_bits)
    extensions = _parse_extensions(head, start=header_bytes, end=extensions_end)
    return Qcow2Header(
        version=version,
        cluster_bits=cluster_bits,
        virtual_size_bytes=virtual_size_bytes,
        l1_offset_bytes=l1_offset,
        l1_entries=l1_entries,
        has_extended_l2=bool(incompatible & INCOMPATIBLE_EXTENDED_L2),
        compression_type=_parse_compression_type(head, header_bytes),
        refcount_table_offset_bytes=refcount_offset,
        refcount_table_clusters=refcount_clusters,
        refcount_order=refcount_order,
        snapshot_count=snapshot_count,
        header_length_bytes=header_bytes,
        incompatible_features=incompatible,
        compatible_features=compatible,
        autoclear_features=autoclear,
        backing_file=_parse_backing_file(head, backing_offset, backing_bytes),
        data_file=_parse_data_file(extensions, incompatible),
        encryption_method=encryption_method,
        extensions=extensions,
    )


def header_findings(header: Qcow2Header, *, file_size_bytes: int | None) -> tuple[Finding, ...]:
    """Return everything in the header that makes the image unsafe; tables are held against the file's size when it is known."""
    return (
        *_reference_findings(header),
        *_feature_findings(header),
        *_extension_findings(header, file_size_bytes),
        *_size_findings(header),
        *_table_findings(header, file_size_bytes),
    )


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise ImageError(message, hint="the image is damaged or made to harm; `qemu-img check -f qcow2` may say more")


def _require_header_length(header_bytes: int, *, cluster_size_bytes: int) -> None:
    is_sane = _V3_BYTES <= header_bytes <= cluster_size_bytes and header_bytes % 8 == 0
    _require(is_sane, f"qcow2 header length {header_bytes} is not a multiple of 8 from 104 to the cluster size")


def _parse_compression_type(head: bytes, header_bytes: int) -> CompressionType:
    if header_bytes <= _V3_BYTES:
        return CompressionType.ZLIB
    number = head[_V3_BYTES]
    _require(number in (0, 1), f"qcow2 compression type {number} is neither 0 (zlib) nor 1 (zstd)")
    return CompressionType.ZSTD if number else CompressionType.ZLIB


def _parse_extensions(head: bytes, *, start: int, end: int) -> tuple[HeaderExtension, ...]:
    extensions: list[HeaderExtension] = []
    while start + 8 <= end and len(extensions) <= _MOST_EXTENSIONS:
        _require(start + 8 <= len(head), f"the qcow2 header extensions go on at {start}, further than any reader should follow")
        kind, size_bytes = struct.unpack_from(">II", head, start)
        if kind == _EXTENSION_END:
            break
        start += 8
        fitting_bytes = max(0, min(size_bytes, end - start))
        extensions.append(HeaderExtension(kind=kind, size_bytes=size_bytes, content=head[start : start + fitting_bytes]))
        start += (size_bytes + 7) & ~7
    return tuple(extensions)


def _parse_backing_file(head: bytes, offset_bytes: int, size_bytes: int) -> str:
    if not offset_bytes and not size_bytes:
        return ""
    name = head[offset_bytes : offset_bytes + min(size_bytes, _LONGEST_NAME_BYTES)]
    return name.decode("utf-8", "backslashreplace") or "(a name outside the header)"


def _parse_data_file(extensions: tuple[HeaderExtension, ...], incompatible: int) -> str:
    for extension in extensions:
        if extension.kind == _EXTENSION_DATA_FILE:
            return extension.content[:_LONGEST_NAME_BYTES].decode("utf-8", "backslashreplace") or "(an empty name)"
    return "(without a name)" if incompatible & INCOMPATIBLE_DATA_FILE else ""


def _reference_findings(header: Qcow2Header) -> list[Finding]:
    found = []
    if header.backing_file:
        found.append(Finding(rule="backing-file", message=f"it reads from the backing file {header.backing_file!r}"))
    if header.data_file:
        found.append(Finding(rule="data-file", message=f"its data is in the external data file {header.data_file!r}"))
    if header.encryption_method:
        found.append(Finding(rule="encryption", message=f"it is encrypted (method {header.encryption_method})"))
    if header.snapshot_count:
        found.append(Finding(rule="snapshots", message=f"it has {header.snapshot_count} internal snapshots, which hide data"))
    return found


def _feature_findings(header: Qcow2Header) -> list[Finding]:
    found = []
    features = header.incompatible_features
    if features & INCOMPATIBLE_CORRUPT:
        found.append(Finding(rule="corrupt", message="it is marked corrupt"))
    if unknown := features & ~_KNOWN_INCOMPATIBLE:
        found.append(Finding(rule="unknown-features", message=f"it needs unknown incompatible features ({unknown:#x})"))
    if bool(features & INCOMPATIBLE_COMPRESSION) != (header.compression_type is not CompressionType.ZLIB):
        found.append(Finding(rule="compression-type", message="its compression type and its feature bits contradict each other"))
    if header.has_extended_l2 and header.cluster_bits < 14:
        found.append(
            Finding(rule="extended-l2", message=f"it has subclusters in clusters of only {header.cluster_size_bytes} bytes")
        )
    return found


def _extension_findings(header: Qcow2Header, file_size_bytes: int | None) -> list[Finding]:
    found = []
    if len(header.extensions) > _MOST_EXTENSIONS:
        found.append(Finding(rule="header-extensions", message=f"it has more than {_MOST_EXTENSIONS} header extensions"))
    for extension in header.extensions:
        if len(extension.content) < extension.size_bytes:
            message = f"the header extension {extension.kind:#010x} of {extension.size_bytes} bytes does not fit into the header"
            found.append(Finding(rule="header-extensions", message=message))
        elif extension.kind == _EXTENSION_ENCRYPTION:
            found.append(Finding(rule="encryption", message="it has an encryption header"))
    kinds = [extension.kind for extension in header.extensions]
    if _EXTENSION_BITMAPS in kinds and (
        kinds.count(_EXTENSION_BITMAPS) > 1 or not _is_bitmap_directory_sane(header, file_size_bytes)
    ):
        found.append(Finding(rule="bitmaps", message="its bitmap directory is too large, outside the file, or not the only one"))
    return found


def _is_bitmap_directory_sane(header: Qcow2Header, file_size_bytes: int | None) -> bool:
    directory = header.bitmap_directory
    if directory is None or directory.stop - directory.start > MAX_BITMAP_DIRECTORY_BYTES:
        return False
    return file_size_bytes is None or directory.stop <= file_size_bytes


def _size_findings(header: Qcow2Header) -> list[Finding]:
    found = []
    size_bytes = header.virtual_size_bytes
    if size_bytes == 0 or size_bytes % 512 or size_bytes >= 1 << 63:
        message = f"its virtual size {size_bytes} is not a positive multiple of 512 bytes"
        found.append(Finding(rule="virtual-size", message=message))
    if header.l1_entries < header.needed_l1_entries:
        message = f"its L1 table has {header.l1_entries} entries, its virtual size needs {header.needed_l1_entries}"
        found.append(Finding(rule="l1-table", message=message))
    if header.l1_entries * 8 > MAX_L1_BYTES:
        found.append(Finding(rule="l1-table", message=f"its L1 table is larger than {format_size(MAX_L1_BYTES)}"))
    if header.refcount_order > 6:
        found.append(Finding(rule="refcount-order", message=f"its refcount order {header.refcount_order} is larger than 6"))
    if header.refcount_table_clusters * header.cluster_size_bytes > MAX_REFCOUNT_TABLE_BYTES:
        message = f"its refcount table is larger than {format_size(MAX_REFCOUNT_TABLE_BYTES)}"
        found.append(Finding(rule="refcount-table", message=message))
    return found


def _table_findings(header: Qcow2Header, file_size_bytes: int | None) -> list[Finding]:
    l1 = range(header.l1_offset_bytes, header.l1_offset_bytes + max(1, header.l1_entries) * 8)
    refcount_bytes = max(1, header.refcount_table_clusters) * header.cluster_size_bytes
    refcount = range(header.refcount_table_offset_bytes, header.refcount_table_offset_bytes + refcount_bytes)
    found = []
    for rule, name, place in (("l1-table", "L1", l1), ("refcount-table", "refcount", refcount)):
        if place.start % header.cluster_size_bytes:
            found.append(Finding(rule=rule, message=f"its {name} table is not aligned to a cluster"))
        if place.start < header.cluster_size_bytes:
            found.append(Finding(rule=rule, message=f"its {name} table lies over the header"))
        if file_size_bytes is not None and place.stop > file_size_bytes:
            message = f"its {name} table at {place.start} ends outside the file of {file_size_bytes} bytes"
            found.append(Finding(rule=rule, message=message))
    if l1.start < refcount.stop and refcount.start < l1.stop:
        found.append(Finding(rule="table-overlap", message="its L1 and refcount tables lie over each other"))
    return found
