"""Small disk images as bytes, good ones and evil ones: every field can be poked, nothing needs a program or a big file.

The good ones are complete: qemu-img opens, checks and compares them (``tests/imagekit/formats/test_builders.py``).
"""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence

import zstandard

from imagekit.formats.crc32c import crc32c

QCOW2_FIELDS = {  # name in QEMU's docs/interop/qcow2.txt → offset, length
    "magic": (0, 4),
    "version": (4, 4),
    "backing_file_offset": (8, 8),
    "backing_file_size": (16, 4),
    "cluster_bits": (20, 4),
    "size": (24, 8),
    "crypt_method": (32, 4),
    "l1_size": (36, 4),
    "l1_table_offset": (40, 8),
    "refcount_table_offset": (48, 8),
    "refcount_table_clusters": (56, 4),
    "nb_snapshots": (60, 4),
    "snapshots_offset": (64, 8),
    "incompatible_features": (72, 8),
    "compatible_features": (80, 8),
    "autoclear_features": (88, 8),
    "refcount_order": (96, 4),
    "header_length": (100, 4),
    "compression_type": (104, 1),
}
COPIED = 1 << 63
COMPRESSED = 1 << 62


class BytesReader:
    """A RandomReader of bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size_bytes(self) -> int:
        return len(self._content)

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        assert 0 <= offset_bytes < 1 << 63, "no file has such a place"
        assert size_bytes >= 0
        return self._content[offset_bytes : offset_bytes + size_bytes]


def sample_disk(size_bytes: int = 1 << 20, *, step_bytes: int = 3 * 65536) -> bytes:
    """Return a disk with a little data every ``step_bytes`` and zeros between."""
    disk = bytearray(size_bytes)
    for number, start in enumerate(range(0, size_bytes, step_bytes)):
        disk[start : start + 16] = f"sector {number:08}\n".encode()
    return bytes(disk)


def poke(image: bytes, offset: int, content: bytes) -> bytes:
    """Return ``image`` with ``content`` at ``offset``; it grows where it must."""
    grown = bytearray(image.ljust(offset + len(content), b"\0"))
    grown[offset : offset + len(content)] = content
    return bytes(grown)


def poke_qcow2(image: bytes, **fields: int) -> bytes:
    """Return a qcow2 image with header fields replaced; names are QCOW2_FIELDS."""
    for name, value in fields.items():
        offset, length = QCOW2_FIELDS[name]
        image = poke(image, offset, value.to_bytes(length, "big"))
    return image


def qcow2_image(
    disk: bytes | None = None,
    *,
    version: int = 3,
    cluster_bits: int = 16,
    compression: str | None = None,
    has_extended_l2: bool = False,
    **fields: int,
) -> bytes:
    """Return a complete qcow2 image of ``disk``: header, refcounts, L1, L2 tables, data in guest order.

    Args:
        compression: ``zlib`` or ``zstd`` to compress every cluster that gets smaller by it.
        fields: Header fields to poke afterwards, as poke_qcow2 takes them.
    """
    layout = _Qcow2Layout(sample_disk() if disk is None else disk, cluster_bits=cluster_bits, has_extended_l2=has_extended_l2)
    layout.place(compression)
    header = _qcow2_header(layout, version=version, compression=compression)
    return poke_qcow2(poke(layout.to_bytes(), 0, header), **fields)


class _Qcow2Layout:
    """An image being laid out: cluster 0 header, 1 refcount table, 2 refcount block, 3… L1, then L2 tables, then data."""

    def __init__(self, disk: bytes, *, cluster_bits: int, has_extended_l2: bool) -> None:
        self.disk = disk
        self.cluster_bits = cluster_bits
        self.cluster_bytes = 1 << cluster_bits
        self.has_extended_l2 = has_extended_l2
        self.entry_bytes = 16 if has_extended_l2 else 8
        entries = self.cluster_bytes // self.entry_bytes
        self.clusters = -(-len(disk) // self.cluster_bytes)
        self.l1_entries = -(-self.clusters // entries)
        self.l1_offset = 3 * self.cluster_bytes
        self.l2_offset = self.l1_offset + self._round_up(self.l1_entries * 8)
        self.image = bytearray(self.l2_offset + self.l1_entries * self.cluster_bytes)
        self.references = [1] * (len(self.image) // self.cluster_bytes)
        for number in range(self.l1_entries):
            self._write(self.l1_offset + number * 8, self.l2_offset + number * self.cluster_bytes | COPIED)

    def place(self, compression: str | None) -> None:
        for cluster in range(self.clusters):
            content = self.disk[cluster << self.cluster_bits : (cluster + 1) << self.cluster_bits].ljust(self.cluster_bytes, b"\0")
            if not any(content):
                continue
            packed = _compress(content, compression)
            is_smaller = len(packed) < self.cluster_bytes
            self._write_entry(
                cluster, self._append_packed(packed) if is_smaller else self._append_plain(content), is_plain=not is_smaller
            )

    def to_bytes(self) -> bytes:
        self.image += bytes(-len(self.image) % 512)
        self._write(self.cluster_bytes, 2 * self.cluster_bytes)
        assert len(self.references) * 2 <= self.cluster_bytes, "one refcount block must do"
        struct.pack_into(f">{len(self.references)}H", self.image, 2 * self.cluster_bytes, *self.references)
        return bytes(self.image)

    def _append_plain(self, content: bytes) -> int:
        self.image += bytes(self._round_up(len(self.image)) - len(self.image))
        start = len(self.image)
        self.image += content
        self.references += [1]
        return start | COPIED

    def _append_packed(self, packed: bytes) -> int:
        start = len(self.image)
        self.image += packed
        last = start + len(packed) - 1
        self.references += [0] * ((last >> self.cluster_bits) + 1 - len(self.references))
        for host in range(start >> self.cluster_bits, (last >> self.cluster_bits) + 1):
            self.references[host] += 1
        more_sectors = (last >> 9) - (start >> 9)
        return COMPRESSED | more_sectors << (62 - (self.cluster_bits - 8)) | start

    def _write_entry(self, cluster: int, entry: int, *, is_plain: bool) -> None:
        offset = self.l2_offset + cluster * self.entry_bytes
        self._write(offset, entry)
        if self.has_extended_l2 and is_plain:
            self._write(offset + 8, 0xFFFF_FFFF)

    def _write(self, offset: int, word: int) -> None:
        struct.pack_into(">Q", self.image, offset, word)

    def _round_up(self, size_bytes: int) -> int:
        return -(-size_bytes // self.cluster_bytes) * self.cluster_bytes


def _compress(content: bytes, compression: str | None) -> bytes:
    if compression == "zlib":
        packer = zlib.compressobj(wbits=-12)
        return packer.compress(content) + packer.flush()
    return zstandard.compress(content) if compression == "zstd" else content


def _qcow2_header(layout: _Qcow2Layout, *, version: int, compression: str | None) -> bytes:
    features = (8 if compression == "zstd" else 0) | (16 if layout.has_extended_l2 else 0)
    v2 = struct.pack(
        *(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, 0, 0, layout.cluster_bits, len(layout.disk), 0, layout.l1_entries),
        *(layout.l1_offset, layout.cluster_bytes, 1, 0, 0),
    )
    v3 = struct.pack(">QQQIIB7x", features, 0, 0, 4, 112, 1 if compression == "zstd" else 0)
    return v2 + v3 if version >= 3 else v2


def qcow2_table(image: bytes) -> int:
    """Return where the first L2 table of a qcow2 image is."""
    l1 = int.from_bytes(image[40:48], "big")
    return int.from_bytes(image[l1 : l1 + 8], "big") & ~COPIED


def poke_l2(image: bytes, index: int, entry: int) -> bytes:
    """Return a qcow2 image with one (8-byte) entry of its first L2 table replaced."""
    return poke(image, qcow2_table(image) + index * 8, entry.to_bytes(8, "big"))


def with_backing_file(image: bytes, name: str) -> bytes:
    """Return a qcow2 image that reads from the backing file ``name``."""
    return poke_qcow2(poke(image, 1024, name.encode()), backing_file_offset=1024, backing_file_size=len(name.encode()))


def with_extension(image: bytes, kind: int, content: bytes, *, size_bytes: int | None = None) -> bytes:
    """Return a version 3 image whose only header extension is this one, of the claimed size."""
    length = int.from_bytes(image[100:104], "big")
    return poke(image, length, struct.pack(">II", kind, len(content) if size_bytes is None else size_bytes) + content)


def with_data_file(image: bytes, name: str) -> bytes:
    """Return a version 3 image whose data is in the external file ``name``."""
    return with_extension(poke_qcow2(image, incompatible_features=4), 0x44415441, name.encode())


def mbr(*partitions: tuple[int, int, int]) -> bytes:
    """Return a boot sector with partitions of (type, first sector, sectors)."""
    entries = b"".join(struct.pack("<B3sB3sII", 0, b"\0\2\0", kind, b"\xff" * 3, *place) for kind, *place in partitions)
    return bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa"


LINUX_FILESYSTEM = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def gpt(*partitions: tuple[str, int, int], disk_bytes: int = 1 << 20, sector_bytes: int = 512) -> bytes:
    """Return the start of a GPT disk with partitions of (label, first sector, last sector)."""
    entries = b"".join(
        struct.pack("<16s16sQQQ72s", LINUX_FILESYSTEM.bytes_le, bytes([7]) * 16, first, last, 0, label.encode("utf-16-le"))
        for label, first, last in partitions
    ).ljust(128 * 128, b"\0")
    sectors = disk_bytes // sector_bytes
    places = (1, sectors - 1, 34, sectors - 34, bytes([9]) * 16, 2, 128, 128, zlib.crc32(entries))
    header = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, *places)
    header = poke(header, 16, struct.pack("<I", zlib.crc32(header)))
    start = mbr((0xEE, 1, sectors - 1)).ljust(sector_bytes, b"\0") + header.ljust(sector_bytes, b"\0") + entries
    return start.ljust(disk_bytes, b"\0")


def vmdk_descriptor(
    sectors: int, *, subformat: str = "monolithicSparse", parent: str = "ffffffff", extents: Sequence[str] | None = None
) -> bytes:
    """Return the text of a VMDK descriptor; ``extents`` replaces its extent lines."""
    lines = extents if extents is not None else [f'RW {sectors} SPARSE "disk.vmdk"']
    return "\n".join(
        ["# Disk DescriptorFile", "version=1", "CID=12345678", f"parentCID={parent}", f'createType="{subformat}"', "", *lines, ""]
    ).encode()


def vmdk_image(disk: bytes | None = None, *, descriptor: bytes | None = None, **fields: int) -> bytes:
    """Return a sparse VMDK with 64 KiB grains.

    Args:
        fields: ``version``, ``flags``, ``capacity``, ``grain_sectors``, ``descriptor_sector`` or ``directory_sector`` to poke.
    """
    disk = sample_disk() if disk is None else disk
    sectors = len(disk) // 512
    grains = [disk[start : start + 65536] for start in range(0, len(disk), 65536)]
    assert len(grains) <= 512, "one grain table must do"
    values = {"version": 1, "flags": 3, "capacity": sectors, "grain_sectors": 128, "descriptor_sector": 1, "directory_sector": 21}
    values |= fields
    header = struct.pack(
        *("<4sIIQQQQIQQQB4sH433x", b"KDMV", values["version"], values["flags"], values["capacity"], values["grain_sectors"]),
        *(values["descriptor_sector"], 20, 512, 0, values["directory_sector"], 128, 0, b"\n \r\n", 0),
    )
    text = vmdk_descriptor(sectors) if descriptor is None else descriptor
    image = bytearray(poke(header, 512, text).ljust(128 * 512, b"\0"))
    struct.pack_into("<I", image, 21 * 512, 22)
    for number, grain in enumerate(grains):
        if any(grain):
            struct.pack_into("<I", image, 22 * 512 + number * 4, len(image) // 512)
            image += grain.ljust(65536, b"\0")
    return bytes(image)


def vhd_footer(size_bytes: int, *, kind: int, data_offset: int = 0xFFFF_FFFF_FFFF_FFFF, creator: bytes = b"win ") -> bytes:
    """Return a VHD footer with a checksum that holds; its geometry is that of whole cylinders."""
    geometry = struct.pack(">HBB", min(65535, size_bytes // (16 * 63 * 512)), 16, 63)
    fields = (b"conectix", 2, 0x10000, data_offset, 0, creator, 0x50003, b"Wi2k", size_bytes, size_bytes, geometry, kind)
    footer = struct.pack(">8sIIQI4sI4sQQ4sI", *fields).ljust(512, b"\0")
    return poke(footer, 64, (~sum(footer) & 0xFFFF_FFFF).to_bytes(4, "big"))


def vhd_fixed(disk: bytes | None = None) -> bytes:
    """Return a fixed VHD: the disk and a footer."""
    disk = sample_disk() if disk is None else disk
    return disk + vhd_footer(len(disk), kind=2)


def vhd_dynamic(disk: bytes | None = None, *, kind: int = 3, parent: bytes = b"") -> bytes:
    """Return a dynamic VHD with 2 MiB blocks; ``kind`` 4 is a differencing one."""
    disk = sample_disk() if disk is None else disk
    block_bytes = 2 << 20
    blocks = [disk[start : start + block_bytes] for start in range(0, len(disk), block_bytes)]
    footer = vhd_footer(len(disk), kind=kind, data_offset=512)
    header = struct.pack(">8sQQIIII16s", b"cxsparse", (1 << 64) - 1, 1536, 0x10000, len(blocks), block_bytes, 0, parent).ljust(
        1024, b"\0"
    )
    header = poke(header, 36, (~sum(header) & 0xFFFF_FFFF).to_bytes(4, "big"))
    image = bytearray(footer + header + b"\xff" * 512)
    for number, block in enumerate(blocks):
        if any(block):
            struct.pack_into(">I", image, 1536 + number * 4, len(image) // 512)
            image += b"\xff" * 512 + block.ljust(block_bytes, b"\0")
    return bytes(image) + footer


def vdi_image(disk: bytes | None = None, *, kind: int = 1, parent: bytes = bytes(16)) -> bytes:
    """Return a VDI with 1 MiB blocks."""
    disk = sample_disk() if disk is None else disk
    blocks = [disk[start : start + (1 << 20)] for start in range(0, len(disk), 1 << 20)]
    used = [number for number, block in enumerate(blocks) if any(block)]
    header = b"<<< Oracle VM VirtualBox Disk Image >>>\n".ljust(64, b"\0") + struct.pack("<IIII", 0xBEDA107F, 0x10001, 400, kind)
    header = header.ljust(0x154, b"\0") + struct.pack(
        *("<IIIIIIIQIIII16s16s16s16s", 512, 1024, 0, 0, 0, 512, 0, len(disk), 1 << 20, 0, len(blocks), len(used)),
        *(bytes([1]) * 16, bytes([2]) * 16, bytes(16), parent),
    )
    table = b"".join(struct.pack("<I", used.index(number) if number in used else 0xFFFF_FFFF) for number in range(len(blocks)))
    content = b"".join(blocks[number].ljust(1 << 20, b"\0") for number in used)
    return header.ljust(512, b"\0") + table.ljust(512, b"\0") + content


def iso_image(label: str = "SAMPLE", *, boot_sector: bytes = b"") -> bytes:
    """Return the descriptors of an ISO 9660 image; ``boot_sector`` makes a hybrid."""
    primary = (b"\x01CD001\x01\0".ljust(40, b" ") + label.encode().ljust(32)).ljust(2048, b"\0")
    return poke(poke(bytes(64 * 1024), 32768, primary + b"\xffCD001\x01"), 0, boot_sector)


def _sealed(content: bytes) -> bytes:
    """Return a VHDX structure with its checksum."""
    return poke(content, 4, crc32c(content).to_bytes(4, "little"))


def vhdx_image(disk: bytes | None = None, *, log_id: bytes = bytes(16), has_parent: bool = False, **items: bytes) -> bytes:
    """Return a VHDX with 1 MiB blocks.

    Args:
        log_id: Anything but zeros says that the log must be replayed.
        items: ``size`` or ``parameters`` of the metadata to replace.
    """
    disk = sample_disk() if disk is None else disk
    mib = 1 << 20
    header = struct.pack("<4sIQ16s16s16sHHIQ", b"head", 0, 7, bytes([1]) * 16, bytes([2]) * 16, log_id, 0, 1, mib, mib).ljust(
        4096, b"\0"
    )
    regions = struct.pack("<4sIII", b"regi", 0, 2, 0)
    regions += struct.pack("<16sQII", uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le, 3 * mib, mib, 1)
    regions += struct.pack("<16sQII", uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le, 2 * mib, mib, 1)
    sealed = _sealed(regions.ljust(65536, b"\0"))
    image = poke(b"vhdxfile".ljust(4 * mib, b"\0"), 65536, _sealed(header))
    image = poke(poke(poke(image, 131072, _sealed(poke(header, 8, b"\x06"))), 196608, sealed), 262144, sealed)
    filled = bytearray(poke(image, 2 * mib, _vhdx_metadata(len(disk), has_parent=has_parent, **items)))
    for number, start in enumerate(range(0, len(disk), mib)):
        if any(block := disk[start : start + mib]):
            struct.pack_into("<Q", filled, 3 * mib + number * 8, len(filled) | 6)
            filled += block.ljust(mib, b"\0")
    return bytes(filled)


def _vhdx_metadata(size_bytes: int, *, has_parent: bool, size: bytes = b"", parameters: bytes = b"") -> bytes:
    items = [
        ("caa16737-fa36-4d43-b3b6-33f0aa44e76b", parameters or struct.pack("<II", 1 << 20, 2 if has_parent else 0)),
        ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", size or struct.pack("<Q", size_bytes)),
        ("8141bf1d-a96f-4709-ba47-f233a8faab5f", struct.pack("<I", 512)),
        ("cda348c7-445d-4471-9cc9-e9885251c556", struct.pack("<I", 4096)),
        ("beca12ab-b2e6-4523-93ef-c309e000c746", bytes([5]) * 16),
    ]
    if has_parent:
        items.append(("a8d35f2d-b30b-454d-abf7-d3d84834ab0c", bytes(20)))
    table, content = struct.pack("<8sHH20x", b"metadata", 0, len(items)), b""
    for name, value in items:
        table += struct.pack("<16sIIII", uuid.UUID(name).bytes_le, 65536 + len(content), len(value), 4, 0)
        content += value.ljust(16, b"\0")
    return table.ljust(65536, b"\0") + content
