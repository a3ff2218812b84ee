"""VMDK, VHD, VHDX, VDI and ISO: sound ones have no findings, evil ones do."""

from __future__ import annotations

import struct

import pytest

from imagekit.base.errors import ImageError
from imagekit.image import DiskFormat, ImageInfo
from imagekit.inspection import inspect_reader
from tests.support import images
from tests.support.images import BytesReader, poke

DISK = images.sample_disk()
MIB = 1 << 20
VMDK = images.vmdk_image()
DYNAMIC = images.vhd_dynamic()
VHDX = images.vhdx_image()
VDI = images.vdi_image()


def inspect(image: bytes) -> ImageInfo:
    return inspect_reader(BytesReader(image))


def rules_of(image: bytes) -> set[str]:
    return {finding.rule for finding in inspect(image).findings}


def described(*extents: str, subformat: str = "monolithicSparse", parent: str = "ffffffff") -> bytes:
    """A VMDK with this descriptor inside."""
    lines = extents or None
    return images.vmdk_image(descriptor=images.vmdk_descriptor(2048, subformat=subformat, parent=parent, extents=lines))


def stream_optimized(*, footer: bytes | None = None) -> bytes:
    """A stream-optimized VMDK: its header has no grain directory, its footer has."""
    text = images.vmdk_descriptor(2048, subformat="streamOptimized")
    body = images.vmdk_image(descriptor=text, directory_sector=(1 << 64) - 1)
    end = images.vmdk_image(descriptor=text)[:512] if footer is None else footer
    return body + struct.pack("<QII", 1, 0, 3).ljust(512, b"\0") + end + bytes(512)


@pytest.mark.parametrize(
    ("image", "image_format", "allocated_bytes", "cluster_bytes", "subformat"),
    [
        (VMDK, DiskFormat.VMDK, 6 * 65536, 65536, "monolithicSparse"),
        (stream_optimized(), DiskFormat.VMDK, 6 * 65536, 65536, "streamOptimized"),
        (images.vhd_fixed(), DiskFormat.VHD, None, None, "fixed"),
        (DYNAMIC, DiskFormat.VHD, MIB, 2 * MIB, "dynamic"),
        (VHDX, DiskFormat.VHDX, MIB, MIB, None),
        (VDI, DiskFormat.VDI, MIB, MIB, "dynamic"),
        (images.vdi_image(kind=2), DiskFormat.VDI, MIB, MIB, "fixed"),
    ],
)
def test_sound_images(
    image: bytes, image_format: DiskFormat, allocated_bytes: int | None, cluster_bytes: int | None, subformat: str | None
) -> None:
    info = inspect(image)
    assert info.findings == ()
    assert (info.format, info.virtual_size_bytes, info.file_size_bytes) == (image_format, MIB, len(image))
    assert (info.allocated_bytes, info.cluster_size_bytes) == (allocated_bytes, cluster_bytes)
    assert info.details.get("subformat") == subformat


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (images.vmdk_descriptor(2048, subformat="monolithicFlat", extents=['RW 2048 FLAT "/etc/passwd" 0']), "vmdk-subformat"),
        (b"COWD".ljust(2048, b"\0"), "vmdk-subformat"),
        (described(subformat="monolithicFlat"), "vmdk-subformat"),
        (described(subformat="twoGbMaxExtentSparse"), "vmdk-subformat"),
        (described(subformat="vmfs"), "vmdk-subformat"),
        (described(subformat='streamOptimized"\ncreateType="vmfs'), "vmdk-subformat"),
        (described('RW 2048 FLAT "/etc/passwd" 0'), "vmdk-extent"),
        (described('RW 2048 SPARSE "/etc/passwd"'), "vmdk-extent"),
        (described('RW 2048 SPARSE "..\\\\disk.vmdk"'), "vmdk-extent"),
        (described('RW 2048 SPARSE "nbd:host"'), "vmdk-extent"),
        (described('RW 2048 SPARSE "a.vmdk"', 'RW 2048 SPARSE "b.vmdk"'), "vmdk-extent"),
        (described('RW 2048 SPARSE "a.vmdk"', '  rw 2048 FLAT "/etc/passwd" 0'), "vmdk-extent"),
        (described('RW 4096 SPARSE "disk.vmdk"'), "vmdk-extent"),
        (described("# none"), "vmdk-extent"),
        (described('RW 2048 SPARSE "disk.vmdk"', "surprise"), "vmdk-descriptor"),
        (described('RW 2048 SPARSE "disk.vmdk"', 'ddb.comment = "\xe9"'), "vmdk-descriptor"),
        (described(parent="12345678"), "backing-file"),
        (described('RW 2048 SPARSE "disk.vmdk"', 'parentFileNameHint="/etc/passwd"'), "backing-file"),
        (poke(described('RW 2048 SPARSE "disk.vmdk"', "#" * 400, 'parentFileNameHint="x"'), 36, b"\1"), "backing-file"),
        (images.vmdk_image(descriptor_sector=2), "vmdk-descriptor"),
        (images.vmdk_image(descriptor_sector=0), "vmdk-descriptor"),
        (images.vmdk_image(capacity=0), "virtual-size"),
        (images.vmdk_image(capacity=1 << 60), "virtual-size"),
        (images.vmdk_image(directory_sector=1 << 40), "vmdk-directory"),
        (images.vmdk_image(directory_sector=(1 << 64) - 1), "vmdk-footer"),
        (stream_optimized(footer=bytes(512)), "vmdk-footer"),
        (stream_optimized(footer=images.vmdk_image(capacity=4096)[:512]), "vmdk-footer"),
        (stream_optimized() + bytes(512), "vmdk-footer"),
        (poke(VMDK, 21 * 512, b"\xff\xff\xff\x7f"), "outside-file"),
        (poke(VMDK, 22 * 512, b"\xff\xff\xff\x7f"), "outside-file"),
        (poke(VMDK, 22 * 512 + 4, VMDK[22 * 512 : 22 * 512 + 4]), "cluster-overlap"),
        (poke(VMDK, 77, b"\7"), "compression-type"),
    ],
)
def test_evil_vmdk(image: bytes, rule: str) -> None:
    assert rule in rules_of(image)


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (images.vhd_dynamic(kind=4), "backing-file"),
        (images.vhd_dynamic(parent=bytes([1]) * 16), "backing-file"),
        (images.vhd_dynamic(kind=6), "vhd-subformat"),
        (poke(DYNAMIC, 100, b"\1"), "vhd-checksum"),
        (poke(DYNAMIC, 512 + 900, b"\1"), "vhd-checksum"),
        (DYNAMIC[:-512], "vhd-footer"),
        (DYNAMIC + bytes(512), "vhd-footer"),
        (DYNAMIC[:-512] + images.vhd_footer(1 << 30, kind=3, data_offset=512), "vhd-footer"),
        (images.vhd_fixed() + images.vhd_footer(MIB, kind=2), "virtual-size"),
        (DISK + images.vhd_footer(MIB // 2, kind=2), "virtual-size"),
        (DISK + images.vhd_footer(0, kind=2), "virtual-size"),
        (DISK + images.vhd_footer(MIB, kind=3, data_offset=512), "vhd-footer"),
        (poke(DYNAMIC, 1536, b"\x7f\xff\xff\xff"), "outside-file"),
    ],
)
def test_evil_vhd(image: bytes, rule: str) -> None:
    assert rule in rules_of(image)


def test_vhd_blocks_cannot_be_used_twice() -> None:
    image = images.vhd_dynamic(images.sample_disk(4 * MIB))
    assert rules_of(image) == set()
    assert rules_of(poke(image, 1540, image[1536:1540])) == {"cluster-overlap"}


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (poke(VDI, 0x17C, b"\1"), "vdi-blocks"),
        (images.vdi_image(kind=3), "vdi-subformat"),
        (images.vdi_image(kind=4), "vdi-subformat"),
        (images.vdi_image(parent=bytes([1]) * 16), "backing-file"),
        (poke(VDI, 0x1A8, b"\1"), "backing-file"),
        (poke(VDI, 0x168, b"\0\x10"), "vdi-sectors"),
        (poke(VDI, 0x170, bytes(8)), "virtual-size"),
        (poke(VDI, 0x170, b"\xff" * 7), "vdi-map"),
        (poke(VDI, 0x180, b"\xff\xff\xff\xff"), "vdi-map"),
        (poke(VDI, 0x154, bytes(4)), "vdi-map"),
        (poke(VDI, 0x158, bytes(4)), "table-overlap"),
        (poke(VDI, 512, b"\xff\xff\0\0"), "outside-file"),
    ],
)
def test_evil_vdi(image: bytes, rule: str) -> None:
    assert rule in rules_of(image)


@pytest.mark.parametrize(
    ("image", "rule"),
    [
        (images.vhdx_image(log_id=bytes([1]) * 16), "vhdx-log"),
        (images.vhdx_image(has_parent=True), "backing-file"),
        (images.vhdx_image(parameters=struct.pack("<II", MIB, 2)), "backing-file"),
        (images.vhdx_image(size=bytes(8)), "virtual-size"),
        (images.vhdx_image(size=struct.pack("<Q", 1000)), "virtual-size"),
        (images.vhdx_image(size=b"\xff" * 8), "virtual-size"),
        (images.vhdx_image(size=struct.pack("<Q", 64 << 40)), "vhdx-map"),
        (poke(VHDX, 3 * MIB, struct.pack("<Q", 1 << 40 | 6)), "outside-file"),
    ],
)
def test_evil_vhdx(image: bytes, rule: str) -> None:
    assert rule in rules_of(image)


def test_vhdx_needs_only_one_of_its_two_headers_and_tables() -> None:
    assert rules_of(poke(VHDX, 65536 + 8, b"\xff")) == set()
    assert rules_of(poke(VHDX, 196608 + 16, b"\xff")) == set()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (images.vmdk_image(grain_sectors=1 << 13), "grains of 8192 sectors"),
        (poke(VMDK, 4, b"\x09"), "VMDK version 9"),
        (poke(VMDK, 73, b"\r\n"), "sent as text"),
        (images.vmdk_image(grain_sectors=0), "grains of 0 sectors"),
        (images.vmdk_image(grain_sectors=3), "grains of 3 sectors"),
        (b"conectix", "VHD footer"),
        (poke(DYNAMIC, 512, b"x"), "sparse header"),
        (poke(DYNAMIC, 512 + 32, bytes(4)), "VHD blocks of 0"),
        (poke(VDI, 0x44, b"\2"), "VDI version"),
        (poke(VDI, 0x178, bytes(4)), "VDI blocks of 0"),
        (VHDX[:66000], "neither VHDX header"),
        (poke(poke(VHDX, 65536 + 8, b"\xff"), 131072 + 8, b"\xff"), "neither VHDX header"),
        (poke(poke(VHDX, 196608 + 16, b"\xff"), 262144 + 16, b"\xff"), "neither VHDX region"),
        (images.vhdx_image(parameters=bytes(8)), "VHDX blocks of 0"),
        (poke(VHDX, 2 * MIB, b"x"), "metadata table"),
        (VHDX[: 2 * MIB + 4096], "outside the file"),
    ],
)
def test_images_that_make_no_sense_cannot_be_read(image: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        inspect(image)
    assert caught.value.reason == "UnsupportedFormat"


def test_an_iso_tells_its_label() -> None:
    info = inspect(images.iso_image("DEBIAN 12"))
    assert (info.format, info.details, info.findings, info.partition_table) == (
        DiskFormat.ISO,
        {"volume_label": "DEBIAN 12"},
        (),
        "none",
    )


def test_a_hybrid_iso_is_an_iso() -> None:
    info = inspect(images.iso_image(boot_sector=images.mbr((0x17, 0, 4096))))
    assert (info.format, info.is_safe, info.partition_table) == (DiskFormat.ISO, True, "mbr")
