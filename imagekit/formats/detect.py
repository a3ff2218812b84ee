"""Which one format an image has, by every magic that any common reader would follow."""

from __future__ import annotations

from imagekit.base.errors import ImageError
from imagekit.image import DiskFormat

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 512

_ISO_DESCRIPTOR_OFFSET = 16 * 2048 + 1
_REFUSED_MAGICS = (
    ("QED", b"QED\0"),
    ("LUKS", b"LUKS\xba\xbe"),
    ("Parallels", b"WithoutFreeSpace"),
    ("Parallels", b"WithouFreSpacExt"),
    ("Bochs", b"Bochs Virtual HD Image"),
    ("cloop", b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop"),
)


def detect_format(head: bytes, *, tail: bytes = b"") -> DiskFormat:
    """Return the one format that these bytes have; RAW when they have none.

    Args:
        head: The first HEAD_BYTES of the image; zeros are assumed to follow a shorter one.
        tail: The last TAIL_BYTES when they are known: a fixed VHD tells itself only there.

    Raises:
        ImageError: Two formats match (``UnsafeImage``), or one that is refused by name (``UnsupportedFormat``).
    """
    head = head.ljust(HEAD_BYTES, b"\0")
    refused, matching = _refused_names(head, tail), _matching_formats(head, tail)
    names = sorted({*refused, *(image_format.name for image_format in matching)})
    if len(names) > 1:
        raise ImageError(
            f"the image is several formats at once: {', '.join(names)}",
            reason="UnsafeImage",
            hint="two programs would read two different disks from it; convert the image you mean and use that",
        )
    if refused:
        raise ImageError(
            f"the image has the format {refused[0]}, which is not supported",
            hint="convert it to qcow2 where it was made",
        )
    return matching[0] if matching else DiskFormat.RAW


def _refused_names(head: bytes, tail: bytes) -> list[str]:
    names = [name for name, magic in _REFUSED_MAGICS if head.startswith(magic)]
    if head.startswith(b"QFI\xfb\0\0\0\1"):
        names.append("qcow version 1")
    if tail.startswith(b"koly\0\0\0\4"):
        names.append("DMG")
    return names


def _matching_formats(head: bytes, tail: bytes) -> list[DiskFormat]:
    tests = {
        DiskFormat.QCOW2: head.startswith(b"QFI\xfb") and head[4:8] != b"\0\0\0\1",
        DiskFormat.VMDK: head.startswith((b"KDMV", b"COWD")) or _is_vmdk_descriptor(head),
        DiskFormat.VHD: head.startswith(b"conectix") or b"conectix" in (tail[:8], tail[1:9]),
        DiskFormat.VHDX: head.startswith(b"vhdxfile"),
        DiskFormat.VDI: head[64:68] == b"\x7f\x10\xda\xbe",
        DiskFormat.ISO: head[_ISO_DESCRIPTOR_OFFSET : _ISO_DESCRIPTOR_OFFSET + 5] in (b"CD001", b"BEA01"),
    }
    return [image_format for image_format, is_matching in tests.items() if is_matching]


def _is_vmdk_descriptor(head: bytes) -> bool:
    """Whether these are lines of a VMDK descriptor: after comments and blank lines comes ``version=``."""
    for line in head[:4096].splitlines():
        words = line.strip().lower()
        if words.startswith(b"# disk descriptorfile"):
            return True
        if words and not words.startswith(b"#"):
            return words.startswith(b"version=")
    return False
