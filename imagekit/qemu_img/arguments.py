"""What is said to qemu-img: pure functions that return argument lists.

An image is always named by a ``json:`` block-device description that we write, with its format and the driver ``file``
or ``host_device`` in it: nothing is probed, a name cannot be taken for a protocol (``nbd:…``) or for options, and
what the image says of itself is not followed: no chain of backing files, no other size than the inspector told. Option
names: qemu-img(1), and ``blockdev-add`` in QEMU's QMP reference.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from imagekit.base.errors import UsageError
from imagekit.image import DiskFormat

_COROUTINES = 8
_TARGET_OPTIONS: Mapping[DiskFormat, Mapping[str, str]] = MappingProxyType(
    {
        # Without force_size a VHD's size is rounded up to whole cylinders: another disk than the source.
        DiskFormat.VHD: {"subformat": "dynamic", "force_size": "on"},
        DiskFormat.VHDX: {"subformat": "dynamic"},
        DiskFormat.VMDK: {"subformat": "monolithicSparse"},
    }
)


_SOURCE_OPTIONS: Mapping[DiskFormat, Mapping[str, str | None]] = MappingProxyType(
    {
        DiskFormat.QCOW2: {"backing": None},
        DiskFormat.VMDK: {"backing": None},
        # By the name of the program that made it, a VHD's size would be guessed from its geometry.
        DiskFormat.VHD: {"force_size_calc": "current_size"},
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """A file and the format that it shall be read as, whatever its first bytes look like.

    Attributes:
        is_device: The path is a block device, which qemu-img opens by another driver than a file.
        is_shared: Read it even while a virtual machine writes to it; only for looking.
    """

    path: Path
    format: DiskFormat
    is_device: bool = False
    is_shared: bool = False

    def description(self) -> str:
        """Return the block-device description, ``json:{…}``.

        Raises:
            UsageError: The path is not UTF-8, which JSON cannot carry.
        """
        path = absolute(self.path)
        protocol = "host_device" if self.is_device else "file"
        node: dict[str, object] = {"driver": self.format.driver, "file": {"driver": protocol, "filename": path}}
        node |= _SOURCE_OPTIONS.get(self.format, {})
        return "json:" + json.dumps(node, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions:
    """How a new image is laid out; everything but ``preallocation`` is for qcow2 alone.

    Attributes:
        compression: ``zlib`` or ``zstd`` compresses the clusters that are written; None writes them plain.
        cluster_size_bytes: A power of two from 512 bytes to 2 MiB; qemu-img's 64 KiB when None.
        preallocation: ``metadata``, ``falloc`` or ``full``; nothing is allocated beforehand when None.
    """

    compression: str | None = None
    cluster_size_bytes: int | None = None
    preallocation: str | None = None

    def __post_init__(self) -> None:
        if self.compression not in (None, "zlib", "zstd"):
            raise UsageError(f"{self.compression!r} is not a compression of qcow2", hint="choose zlib or zstd")
        if self.preallocation not in (None, "metadata", "falloc", "full"):
            raise UsageError(f"{self.preallocation!r} is not a way to preallocate", hint="choose metadata, falloc or full")
        size = self.cluster_size_bytes
        if size is not None and not (size.bit_count() == 1 and 512 <= size <= 2 * 1024**2):
            raise UsageError(f"a cluster cannot have {size} bytes", hint="a power of two from 512 to 2M, like 64K")

    def require_support(self, target_format: DiskFormat) -> None:
        """Raise UsageError for an option that ``target_format`` does not have."""
        if target_format is DiskFormat.ISO:
            raise UsageError("an ISO cannot be written", hint="choose raw: the same bytes")
        if target_format is not DiskFormat.QCOW2 and (self.compression or self.cluster_size_bytes):
            raise UsageError(f"only qcow2 has compression and a cluster size, {target_format.value} has not")
        if self.preallocation and target_format not in (DiskFormat.QCOW2, DiskFormat.RAW):
            raise UsageError(f"only qcow2 and raw can be preallocated, {target_format.value} cannot")
        if self.preallocation == "metadata" and target_format is DiskFormat.RAW:
            raise UsageError("a raw disk has no metadata to preallocate", hint="choose falloc or full")

    def arguments(self, target_format: DiskFormat) -> list[str]:
        """Return ``-o NAME=VALUE,…`` for ``target_format``, or nothing."""
        options = dict(_TARGET_OPTIONS.get(target_format, {}))
        if self.compression:
            options["compression_type"] = self.compression
        if self.cluster_size_bytes:
            options["cluster_size"] = str(self.cluster_size_bytes)
        if self.preallocation:
            options["preallocation"] = self.preallocation
        return ["-o", ",".join(f"{name}={value}" for name, value in options.items())] if options else []


def absolute(path: Path) -> str:
    """Return ``path`` as qemu-img takes it for a file name and nothing else: it starts with a slash.

    Raises:
        UsageError: It is not UTF-8.
    """
    text = str(path.absolute())
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"the file name {text!r} is not UTF-8", hint="rename the file") from error
    return text


def _opened(image: ImageFile) -> list[str]:
    shared = ["-U"] if image.is_shared else []
    return [*shared, "-f", image.format.driver]


def info_arguments(image: ImageFile) -> list[str]:
    """Return the call that describes an image."""
    return ["qemu-img", "info", "--output=json", *_opened(image), image.description()]


def convert_arguments(
    source: ImageFile,
    target: Path,
    *,
    target_format: DiskFormat,
    options: TargetOptions,
) -> list[str]:
    """Return the call that writes ``source`` as a new image ``target``, with progress.

    A raw target is written in any order, which is faster. The other formats are laid out in guest order, so that who
    streams them later finds clusters in the order of the disk.
    """
    options.require_support(target_format)
    return [
        *("qemu-img", "convert", "-p", "-m", str(_COROUTINES)),
        *(["-W"] if target_format is DiskFormat.RAW else []),
        *(["-c"] if options.compression else []),
        *_opened(source),
        *("-O", target_format.driver),
        *options.arguments(target_format),
        source.description(),
        absolute(target),
    ]


def create_arguments(target: Path, *, target_format: DiskFormat, size_bytes: int, options: TargetOptions) -> list[str]:
    """Return the call that makes an empty disk."""
    options.require_support(target_format)
    chosen = options.arguments(target_format)
    return ["qemu-img", "create", "-q", "-f", target_format.driver, *chosen, absolute(target), str(size_bytes)]


def overlay_arguments(target: Path, *, backing: ImageFile, size_bytes: int) -> list[str]:
    """Return the call that makes a qcow2 overlay; the backing file is named in it, not opened (``-u``)."""
    named = ["-u", "-b", absolute(backing.path), "-F", backing.format.driver]
    return ["qemu-img", "create", "-q", "-f", "qcow2", *named, absolute(target), str(size_bytes)]


def resize_arguments(image: ImageFile, *, size_bytes: int, is_shrinking: bool) -> list[str]:
    """Return the call that changes a disk's size in place."""
    shrink = ["--shrink"] if is_shrinking else []
    return ["qemu-img", "resize", "-q", *shrink, *_opened(image), image.description(), str(size_bytes)]


def check_arguments(image: ImageFile, *, repair: str | None = None) -> list[str]:
    """Return the call that checks an image's tables; ``repair`` is ``leaks`` or ``all``."""
    repairing = ["-r", repair] if repair else []
    return ["qemu-img", "check", "--output=json", *repairing, *_opened(image), image.description()]


def map_arguments(image: ImageFile) -> list[str]:
    """Return the call that lists where an image has data."""
    return ["qemu-img", "map", "--output=json", *_opened(image), image.description()]


def measure_arguments(image: ImageFile, *, target_format: DiskFormat, options: TargetOptions) -> list[str]:
    """Return the call that tells how large ``image`` becomes as another format."""
    options.require_support(target_format)
    chosen = [*("-O", target_format.driver), *options.arguments(target_format)]
    return ["qemu-img", "measure", "--output=json", *_opened(image), *chosen, image.description()]


def compare_arguments(first: ImageFile, second: ImageFile) -> list[str]:
    """Return the call that compares what guests see of two disks, with progress."""
    formats = ["-f", first.format.driver, "-F", second.format.driver]
    return ["qemu-img", "compare", "-p", *formats, first.description(), second.description()]
