"""One format, or none, or an error."""

from __future__ import annotations

import pytest

from imagekit.base.errors import ImageError
from imagekit.formats.detect import detect_format
from imagekit.image import DiskFormat
from tests.support import images

ISO = images.iso_image()
SAMPLES = {
    "qcow2": (images.qcow2_image(), DiskFormat.QCOW2),
    "vmdk": (images.vmdk_image(), DiskFormat.VMDK),
    "vmdk text": (images.vmdk_descriptor(2048), DiskFormat.VMDK),
    "vmdk text after comments": (b"#\n# any\n\n  version=1\n", DiskFormat.VMDK),
    "vmdk text with other line ends": (b"# any\r\nversion=3\r\n", DiskFormat.VMDK),
    "vmdk cowd": (b"COWD", DiskFormat.VMDK),
    "vhd fixed": (images.vhd_fixed(), DiskFormat.VHD),
    "vhd fixed with the old footer": (bytes(4096) + images.vhd_footer(4096, kind=2)[:511], DiskFormat.VHD),
    "vhd dynamic": (images.vhd_dynamic(), DiskFormat.VHD),
    "vhdx": (images.vhdx_image(), DiskFormat.VHDX),
    "vdi": (images.vdi_image(), DiskFormat.VDI),
    "iso": (ISO, DiskFormat.ISO),
    "udf": (images.poke(bytes(65536), 32769, b"BEA01"), DiskFormat.ISO),
    "iso and mbr": (images.iso_image(boot_sector=images.mbr((0x17, 0, 4096))), DiskFormat.ISO),
    "iso and gpt": (images.poke(images.gpt(("a", 34, 99)), 32768, ISO[32768:36864]), DiskFormat.ISO),
    "raw": (images.sample_disk(), DiskFormat.RAW),
    "mbr": (images.mbr((0x83, 2048, 4096)), DiskFormat.RAW),
    "gpt": (images.gpt(("root", 34, 2000)), DiskFormat.RAW),
    "nothing": (b"", DiskFormat.RAW),
    "a comment": (b"# a shell script\necho version=1\n", DiskFormat.RAW),
}


def detect(image: bytes) -> DiskFormat:
    return detect_format(image[: 64 * 1024], tail=image[-512:])


@pytest.mark.parametrize("name", SAMPLES)
def test_each_format_is_known_by_its_magic(name: str) -> None:
    image, image_format = SAMPLES[name]
    assert detect(image) is image_format


@pytest.mark.parametrize(
    "image",
    [
        images.poke(images.qcow2_image(), 32769, b"CD001"),
        images.poke(images.vmdk_image(), 32769, b"CD001"),
        images.poke(images.vdi_image(), 0, b"QFI\xfb\0\0\0\3"),
        images.poke(images.vdi_image(), 0, b"QED\0"),
        images.poke(images.vdi_image(), 0, images.vmdk_descriptor(9)[:60]),
        images.qcow2_image() + images.vhd_footer(1 << 20, kind=2),
        images.poke(images.qcow2_image(), 64, b"\x7f\x10\xda\xbe"),
        ISO + images.vhd_footer(len(ISO), kind=2),
        ISO + b"koly\0\0\0\4".ljust(512, b"\0"),
        images.poke(ISO, 0, b"LUKS\xba\xbe"),
    ],
)
def test_two_formats_at_once_are_refused(image: bytes) -> None:
    with pytest.raises(ImageError, match="several formats at once") as caught:
        detect(image)
    assert caught.value.reason == "UnsafeImage"


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (b"QED\0", "QED"),
        (b"QFI\xfb\0\0\0\1", "qcow version 1"),
        (b"LUKS\xba\xbe\0\1", "LUKS"),
        (b"LUKS\xba\xbe\0\2", "LUKS"),
        (b"WithoutFreeSpace", "Parallels"),
        (b"WithouFreSpacExt", "Parallels"),
        (b"Bochs Virtual HD Image", "Bochs"),
        (b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0", "cloop"),
        (bytes(4096) + b"koly\0\0\0\4".ljust(512, b"\0"), "DMG"),
    ],
)
def test_formats_that_are_not_read_are_refused_by_name(image: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=f"format {name}, which is not supported") as caught:
        detect(image)
    assert caught.value.reason == "UnsupportedFormat"


def test_a_footer_that_is_not_known_is_not_guessed() -> None:
    assert detect_format(images.vhd_fixed()[:65536]) is DiskFormat.RAW
