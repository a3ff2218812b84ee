"""What is done to one or two disk images in place: the verdict first, then qemu-img with that verdict.

A format is the inspector's verdict, or the user's word. ``raw`` by the user's word is taken literally: a guest may
write anything into its raw disk, a qcow2 header too, and the disk stays raw. It is then neither looked at nor
decompressed, which is always safe, because nothing in it is understood. Any other word must agree with the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagekit import qemu_img
from imagekit.base.errors import ImageError, UsageError, VerificationError
from imagekit.base.files import atomic_path, opened_regular
from imagekit.base.progress import Progress
from imagekit.base.units import TIB, format_size, parse_size
from imagekit.formats.partitions import PARTITION_HEAD_BYTES, read_partition_table
from imagekit.formats.vmdk import is_plain_name
from imagekit.image import Compression, DiskFormat, ImageInfo, Partition
from imagekit.inspection import inspect_file, require_safe
from imagekit.qemu_img import CheckReport, Comparison, ImageFile, Measurement, TargetOptions
from imagekit.stream import FileReader

_SECTOR_BYTES = 512
_MOST_READ_BYTES = 64 * TIB
_DISK_SIZE_LIMIT_BYTES = 1 << 63  # offsets in files are signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """A disk whose size was changed, or was right already."""

    path: Path
    format: DiskFormat
    old_size_bytes: int
    new_size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two disks side by side.

    Attributes:
        is_equal: Whether guests read the same; in a strict comparison also whether the sizes are the same.
        first_difference_bytes: The 512-byte sector of the first difference; None when only the sizes differ.
    """

    is_equal: bool
    first_difference_bytes: int | None
    first_size_bytes: int
    second_size_bytes: int


def identify(path: Path, *, stated: DiskFormat | None = None) -> ImageInfo:
    """Return what ``path`` is, once it is safe to be opened as that.

    Args:
        stated: The user's word; see this module's text.

    Raises:
        ImageError: It is unsafe, or not of the stated format.
        VerificationError: It is damaged.
    """
    if stated is DiskFormat.RAW:
        size_bytes = _file_size_bytes(path)
        return ImageInfo(format=DiskFormat.RAW, file_size_bytes=size_bytes, virtual_size_bytes=size_bytes)
    try:
        info = inspect_file(path)
    except (ImageError, VerificationError) as error:
        error.message = f"{path}: {error.message}"  # one of two images, maybe
        raise
    if stated not in (None, info.format):
        raise ImageError(f"{path} is {info.format.value}, not {stated}", hint=f"leave the format out, or name {info.format.value}")
    require_safe(info, what=str(path))
    return info


def identify_plain(path: Path, *, stated: DiskFormat | None = None) -> ImageInfo:
    """Return what ``path`` is; a compressed file is an error, because qemu-img could not read it in place."""
    info = identify(path, stated=stated)
    if info.compression is not Compression.NONE:
        raise UsageError(
            f"{path} is compressed with {info.compression.value}",
            hint="unpack it first, or write it elsewhere with `imagekit convert`",
        )
    return info


def image_file(path: Path, info: ImageInfo, *, is_shared: bool = False) -> ImageFile:
    """Return how qemu-img shall open what was identified as ``info``."""
    return ImageFile(path=path, format=info.format, is_device=path.is_block_device(), is_shared=is_shared)


def create_disk(target: Path, *, target_format: DiskFormat, size_bytes: int, options: TargetOptions, is_overwriting: bool) -> None:
    """Make an empty disk that appears as ``target`` once it is complete."""
    _require_disk_size(size_bytes)
    options.require_support(target_format)
    require_name_fits(target, target_format)
    require_writable(target, is_overwriting=is_overwriting)
    with atomic_path(target) as partial:
        qemu_img.create(partial, target_format=target_format, size_bytes=size_bytes, options=options)


def _require_disk_size(size_bytes: int) -> None:
    if not 0 < size_bytes < _DISK_SIZE_LIMIT_BYTES or size_bytes % _SECTOR_BYTES:
        raise UsageError(f"a disk of {size_bytes} bytes cannot be", hint="a size is a positive multiple of 512 bytes below 8 EiB")


def resize_disk(path: Path, *, size: str, stated: DiskFormat | None = None, is_shrinking_allowed: bool = False) -> Resized:
    """Change the size that a guest sees; the content of what remains is untouched.

    Args:
        size: The new size, ``20G``, or what is added, ``+5G``.
        is_shrinking_allowed: What lies beyond the new end is lost; a partition that its table lists is never cut, though.

    Raises:
        UsageError: The disk would shrink without leave, or into a partition; or it is in use.
        ImageError: The format cannot be resized, or the image is unsafe.
    """
    info = identify_plain(path, stated=stated)
    old_bytes = info.virtual_size_bytes
    new_bytes = old_bytes + parse_size(size[1:]) if size.startswith("+") else parse_size(size)
    if info.format not in (DiskFormat.RAW, DiskFormat.QCOW2):
        raise ImageError(f"a disk in the format {info.format.value} cannot be resized", hint="convert it to qcow2 or raw first")
    _require_disk_size(new_bytes)
    if path.is_block_device():
        raise UsageError(f"{path} is a block device", hint="resize the volume behind it")
    if new_bytes < old_bytes:
        _require_shrinkable(path, info, new_bytes, is_allowed=is_shrinking_allowed)
    if new_bytes != old_bytes:
        qemu_img.resize(image_file(path, info), size_bytes=new_bytes, is_shrinking=new_bytes < old_bytes)
    return Resized(path=path, format=info.format, old_size_bytes=old_bytes, new_size_bytes=new_bytes)


def _require_shrinkable(path: Path, info: ImageInfo, new_bytes: int, *, is_allowed: bool) -> None:
    change = f"{path} would shrink from {format_size(info.virtual_size_bytes)} to {format_size(new_bytes)}"
    if not is_allowed:
        raise UsageError(change, hint="--shrink allows it; everything beyond the new end is lost")
    for partition in info.partitions or _read_partitions(path, info):
        if partition.start_bytes + partition.size_bytes > new_bytes:
            end = format_size(partition.start_bytes + partition.size_bytes)
            raise UsageError(
                f"{change}, but partition {partition.number} reaches to {end}",
                hint="shrink the file system and the partition in the guest first",
            )


def _read_partitions(path: Path, info: ImageInfo) -> tuple[Partition, ...]:
    """Return the partitions of a disk that is raw by the user's word; to list them is to follow nothing."""
    if info.format is not DiskFormat.RAW:
        return ()
    with opened_regular(path) as descriptor:
        head = FileReader(descriptor).read_at(0, PARTITION_HEAD_BYTES)
    return read_partition_table(head.ljust(PARTITION_HEAD_BYTES, b"\0")).partitions


def check_disk(path: Path, *, stated: DiskFormat | None = None, repair: str | None = None) -> CheckReport:
    """Return what is wrong in the tables of an image; our own rules are required to hold first."""
    info = identify_plain(path, stated=stated)
    return qemu_img.check(image_file(path, info), file_size_bytes=info.file_size_bytes, repair=repair)


def compare_disks(
    first: Path,
    second: Path,
    *,
    first_stated: DiskFormat | None = None,
    second_stated: DiskFormat | None = None,
    is_strict: bool = False,
    progress: Progress,
) -> Compared:
    """Return whether guests read the same from two images, in whatever formats.

    Where one disk is longer its rest counts as equal when it is zero, unless the comparison is strict.
    """
    first_info = identify_plain(first, stated=first_stated)
    second_info = identify_plain(second, stated=second_stated)
    require_whole_readable(first_info, what=str(first))
    require_whole_readable(second_info, what=str(second))
    sizes = (first_info.virtual_size_bytes, second_info.virtual_size_bytes)
    is_size_wrong = is_strict and sizes[0] != sizes[1]
    found = Comparison(is_equal=False)
    if not is_size_wrong:
        first_image, second_image = image_file(first, first_info), image_file(second, second_info)
        found = qemu_img.compare(first_image, second_image, size_bytes=max(sizes), progress=progress)
    return Compared(
        is_equal=found.is_equal,
        first_difference_bytes=found.first_difference_bytes,
        first_size_bytes=sizes[0],
        second_size_bytes=sizes[1],
    )


def measure_disk(path: Path, *, target_format: DiskFormat, options: TargetOptions, stated: DiskFormat | None = None) -> Measurement:
    """Return how large ``path`` becomes as raw or qcow2; compression is not foreseen, so it is an upper bound there."""
    if target_format not in (DiskFormat.RAW, DiskFormat.QCOW2):
        raise UsageError(f"the size of a {target_format.value} cannot be foreseen", hint="choose raw or qcow2")
    options.require_support(target_format)
    info = identify_plain(path, stated=stated)
    return qemu_img.measure(image_file(path, info, is_shared=True), target_format=target_format, options=options)


def require_whole_readable(info: ImageInfo, *, what: str) -> None:
    """Raise ImageError (``TooLarge``) for a disk that takes days to read, though it be empty: a small file can hold 7 EiB."""
    if info.virtual_size_bytes > _MOST_READ_BYTES:
        size, most = format_size(info.virtual_size_bytes), format_size(_MOST_READ_BYTES)
        raise ImageError(
            f"{what}: its disk of {size} is larger than the limit of {most}",
            reason="TooLarge",
            hint="make the disk smaller where the image was made",
        )


def require_name_fits(target: Path, target_format: DiskFormat) -> None:
    """Raise UsageError for a VMDK's name that cannot stand in its descriptor, where qemu-img writes it."""
    if target_format is DiskFormat.VMDK and not is_plain_name(target.name):
        raise UsageError(
            f"{target.name!r} cannot be the name of a VMDK, which is written into the image",
            hint="choose a name of ASCII characters without colons, quotes and backslashes",
        )


def require_writable(target: Path, *, is_overwriting: bool) -> None:
    """Raise UsageError when ``target`` exists and may not be replaced, or is no regular file."""
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise UsageError(f"{target} is not a regular file", hint="name a new file, or an existing image with --force")
    if target.exists() and not is_overwriting:
        raise UsageError(f"{target} exists", hint="--force replaces it")


def _file_size_bytes(path: Path) -> int:
    with opened_regular(path) as descriptor:
        return FileReader(descriptor).size_bytes
