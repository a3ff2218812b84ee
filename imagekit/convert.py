"""A disk image written again in another format, through the shortest safe way.

- qcow2 to raw, and compressed raw or qcow2 to raw: our own one-pass decoders; nothing is written but the target.
- Any other pair: qemu-img with the inspector's verdict as the format. Only an image that is compressed as a whole is
  first unpacked, into a file without a name beside the target, since qemu-img needs to seek in it.

The target appears under its name when it is complete and on the disk.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from imagekit import qemu_img
from imagekit.base.errors import ImageError
from imagekit.base.files import atomic_file, atomic_path, opened_regular, translate_os_error
from imagekit.base.progress import Progress
from imagekit.base.readers import CountedReader
from imagekit.base.units import MIB, format_size
from imagekit.compression import open_decompressed
from imagekit.disk import identify, image_file, require_name_fits, require_whole_readable, require_writable
from imagekit.formats.compressed import ReaderStream
from imagekit.image import Compression, DiskFormat, ImageInfo
from imagekit.inspection import inspect_reader, require_safe
from imagekit.qemu_img import ImageFile, TargetOptions
from imagekit.stream import STREAMED_FORMATS, FileReader, FileWriter, decode_random, decode_stream

_COPY_BYTES = MIB
_MOST_OVERHEAD_BYTES = 64 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """An image that was written: ``allocated_bytes`` is what it occupies, holes not counted."""

    path: Path
    format: DiskFormat
    virtual_size_bytes: int
    file_size_bytes: int
    allocated_bytes: int


def convert(
    source: Path,
    target: Path,
    *,
    source_format: DiskFormat,
    target_format: DiskFormat,
    compression: str | None = None,
    progress: Progress,
) -> Converted:
    """Write the disk in ``source`` as the new file ``target``.

    Args:
        source_format: The inspector's verdict on ``source``; it is inspected again, and has to agree.
        compression: Of the clusters of a qcow2 target: ``zlib`` or ``zstd``.

    Raises:
        UsageError: The target exists or is being written, or its format cannot have its name or the options.
        ImageError: The source is unsafe, of another format, or larger than 64 TiB.
        NoSpaceError: The target's file system is full.
    """
    info = identify(source)
    if info.format is not source_format:
        raise ImageError(f"{source} is {info.format.value}, not {source_format.value}")
    options = TargetOptions(compression=compression)
    return convert_identified(source, target, info=info, target_format=target_format, options=options, progress=progress)


def convert_identified(
    source: Path,
    target: Path,
    *,
    info: ImageInfo,
    target_format: DiskFormat,
    options: TargetOptions,
    is_overwriting: bool = False,
    progress: Progress,
) -> Converted:
    """Write the disk in ``source`` as ``target``; like ``convert``, of what ``identify`` returned as ``info``."""
    options.require_support(target_format)
    require_name_fits(target, target_format)
    require_whole_readable(info, what=str(source))
    require_writable(target, is_overwriting=is_overwriting)
    try:
        if _is_streamed(info, target_format) and not options.preallocation:
            _decode(source, target, info=info, progress=progress)
        else:
            _rewrite(source, target, info=info, target_format=target_format, options=options, progress=progress)
    except OSError as error:
        raise translate_os_error(error, doing=f"convert {source} to {target}") from error
    status = target.stat()
    return Converted(
        path=target,
        format=target_format,
        virtual_size_bytes=status.st_size if target_format is DiskFormat.RAW else info.virtual_size_bytes,
        file_size_bytes=status.st_size,
        allocated_bytes=status.st_blocks * 512,
    )


def _is_streamed(info: ImageInfo, target_format: DiskFormat) -> bool:
    """Tell whether our decoders write the target; a plain raw file is left to qemu-img, which skips its holes."""
    is_plain_raw = info.compression is Compression.NONE and info.format.driver == "raw"
    return target_format is DiskFormat.RAW and info.format in STREAMED_FORMATS and not is_plain_raw


def _decode(source: Path, target: Path, *, info: ImageInfo, progress: Progress) -> None:
    with (
        atomic_file(target) as file,
        opened_regular(source) as descriptor,
        progress.phase("convert", info.file_size_bytes) as phase,
        FileWriter(file.fileno(), is_device=False, capacity_bytes=None) as writer,
    ):
        reader = CountedReader(FileReader(descriptor), phase.advance)
        if info.compression is Compression.NONE:
            decode_random(info.format, reader, writer)
        else:
            stream = open_decompressed(ReaderStream(reader), info.compression)
            decode_stream(info.format, stream, writer, open_spill=lambda: _unnamed_file(target))
        writer.finish()


def _rewrite(
    source: Path,
    target: Path,
    *,
    info: ImageInfo,
    target_format: DiskFormat,
    options: TargetOptions,
    progress: Progress,
) -> None:
    with contextlib.ExitStack() as stack:
        image = image_file(source, info)
        pass_fds: tuple[int, ...] = ()
        if info.compression is not Compression.NONE:
            unpacked = stack.enter_context(_unnamed_file(target))
            _unpack(source, unpacked, info=info, progress=progress)
            image = ImageFile(path=Path(f"/proc/self/fd/{unpacked.fileno()}"), format=info.format)
            pass_fds = (unpacked.fileno(),)
        partial = stack.enter_context(atomic_path(target))
        qemu_img.convert(
            image,
            partial,
            target_format=target_format,
            size_bytes=info.virtual_size_bytes,
            options=options,
            progress=progress,
            pass_fds=pass_fds,
        )


def _unpack(source: Path, unpacked: BinaryIO, *, info: ImageInfo, progress: Progress) -> None:
    """Decompress ``source``, and hold what came out against the verdict: it is what qemu-img is going to open."""
    with opened_regular(source) as descriptor, progress.phase("unpack", info.file_size_bytes) as phase:
        reader = CountedReader(FileReader(descriptor), phase.advance)
        stream = open_decompressed(ReaderStream(reader), info.compression)
        room_bytes = info.virtual_size_bytes + info.virtual_size_bytes // 8 + _MOST_OVERHEAD_BYTES
        while chunk := stream.read(_COPY_BYTES):
            room_bytes -= len(chunk)
            if room_bytes < 0:
                raise ImageError(
                    f"{source} unpacks to more than its {format_size(info.virtual_size_bytes)} disk needs", reason="TooLarge"
                )
            unpacked.write(chunk)
    unpacked.flush()
    found = inspect_reader(FileReader(unpacked.fileno()))
    if found.format is not info.format:
        raise ImageError(f"{source} changed while it was read: {found.format.value}, before {info.format.value}")
    require_safe(found, what=str(source))


def _unnamed_file(target: Path) -> BinaryIO:
    """Return a file beside ``target`` that has no name, so that nothing is left when we are killed."""
    return tempfile.TemporaryFile(dir=target.parent, prefix=f".{target.name}.")
