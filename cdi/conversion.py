"""The route for formats that no decoder of ours knows: kept in a temporary file, verified, judged, given to qemu-img.

qemu-img is told the format that our inspector found in exactly the bytes that it is going to read, and reads them
through a descriptor of a file without a name, so nobody can put another one in its place.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cdi.filling import Filled, Filling, open_volume_writer
from cdi.plan import rounded_up
from cdi.target import TargetKind, open_spill
from cdi.volume_writer import preallocate
from imagekit import qemu_img
from imagekit.base.errors import ImageError, NoSpaceError
from imagekit.base.units import MIB, TIB, format_size
from imagekit.image import DiskFormat, ImageInfo
from imagekit.inspection import inspect_reader, require_safe
from imagekit.qemu_img import ImageFile, TargetOptions
from imagekit.stream import FileReader, decode_random

_LARGEST_COPY_BYTES = 64 * TIB


def fill_by_conversion(filling: Filling) -> Filled:
    """Write the disk into the target; the source is verified before qemu-img sees it.

    Raises:
        ImageError: The image is unsafe, or not what its head said.
        NoSpaceError: It does not fit, or the copy of it did not.
    """
    with contextlib.ExitStack() as stack:
        descriptor = filling.source.direct_descriptor
        if descriptor is None:
            descriptor = _copy(filling, stack)
        else:
            filling.meter.count(os.fstat(descriptor).st_size)  # qemu-img reads it, we only look at it
        info = inspect_reader(FileReader(descriptor))
        if info.format is not filling.plan.format:
            raise ImageError(f"{filling.source.opened.name} changed while it was read", reason="UnsafeImage")
        require_safe(info, what=filling.source.opened.name)
        disk_size_bytes = max(rounded_up(info.virtual_size_bytes), filling.plan.least_size_bytes)
        _require_capacity(filling, disk_size_bytes)
        if filling.target.observe().kind is TargetKind.FILE:
            _convert(filling, info, descriptor=descriptor, target=filling.target.conversion_path)
            os.ftruncate(filling.target.descriptor, disk_size_bytes)
            if filling.job.preallocate:
                preallocate(filling.target.descriptor, disk_size_bytes)
        else:
            _convert_for_device(filling, info, descriptor=descriptor)
    return Filled(
        virtual_size_bytes=info.virtual_size_bytes, disk_size_bytes=disk_size_bytes, written_bytes=info.virtual_size_bytes
    )


def _copy(filling: Filling, stack: contextlib.ExitStack) -> int:
    file = stack.enter_context(open_spill(filling.target))
    size_bytes = 0
    while chunk := filling.source.image.read(MIB):
        size_bytes += len(chunk)
        if size_bytes > _LARGEST_COPY_BYTES:
            raise ImageError(f"the image unpacks to more than {format_size(_LARGEST_COPY_BYTES)}", reason="TooLarge")
        file.write(chunk)
    file.flush()
    filling.source.verify()
    return file.fileno()


def _convert(filling: Filling, info: ImageInfo, *, descriptor: int, target: Path) -> None:
    qemu_img.convert(
        ImageFile(path=Path(f"/proc/self/fd/{descriptor}"), format=info.format),
        target,
        target_format=DiskFormat.RAW,
        size_bytes=info.virtual_size_bytes,
        options=TargetOptions(),
        progress=filling.progress,
        pass_fds=(descriptor,),
    )


def _convert_for_device(filling: Filling, info: ImageInfo, *, descriptor: int) -> None:
    """qemu-img would not hold back what makes a disk recognisable; so it writes a file, and we the device."""
    path = filling.target.conversion_path
    path.unlink(missing_ok=True)
    converted = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _convert(filling, info, descriptor=descriptor, target=path)
        with open_volume_writer(filling) as writer:
            decode_random(DiskFormat.RAW, FileReader(converted), writer)
            writer.finish()
    finally:
        os.close(converted)
        path.unlink(missing_ok=True)


def _require_capacity(filling: Filling, disk_size_bytes: int) -> None:
    capacity_bytes = filling.plan.capacity_bytes
    if capacity_bytes is not None and disk_size_bytes > capacity_bytes:
        raise NoSpaceError(
            f"{filling.target.path} is too small: the disk needs {format_size(disk_size_bytes)}, "
            f"it has {format_size(capacity_bytes)}",
            reason="TooLarge",
            hint="choose a larger target",
        )
