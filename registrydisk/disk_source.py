"""The disk that an image is built of: what it is, whether it is safe, and its bytes in order.

A disk is read as it stands where that is possible: a plain qcow2, raw or ISO file, or one behind a URL. Two exceptions
cost more, and are told. A compressed file is read twice, because an archive says the length of a file before its bytes
and only the end of a compressed one tells it. Formats that clusters do not run are converted into a temporary file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from imagekit.base.errors import ImageError
from imagekit.base.files import open_regular, require_free_bytes
from imagekit.base.progress import Progress
from imagekit.base.units import MIB, TIB, format_size
from imagekit.compression import open_decompressed
from imagekit.image import Compression, DiskFormat, ImageInfo
from imagekit.inspection import inspect_file, inspect_reader, require_safe
from imagekit.stream import FileReader
from registrydisk.access import RegistryAccess
from registrydisk.disk_blocks import file_blocks, file_samples, stream_blocks

RUNNABLE_FORMATS = frozenset({DiskFormat.QCOW2, DiskFormat.RAW, DiskFormat.ISO})
"""What a cluster runs from an image as it is; the others are converted to qcow2."""

_LARGEST_DISK_BYTES = 64 * TIB
_COMPRESSION_ENDINGS = (".gz", ".xz", ".zst", ".zstd", ".bz2")
_ENDINGS = {DiskFormat.QCOW2: (".qcow2", ".img"), DiskFormat.RAW: (".img", ".raw"), DiskFormat.ISO: (".iso", ".img")}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_PIECE_BYTES = MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSource:
    """A disk that is ready to be read.

    Attributes:
        name: What its file in the image is called when nobody asks for another name.
        info: What the inspector says of exactly these bytes.
        size_bytes: Length of the file that goes into the image.
        blocks: Starts reading; each call from the beginning.
        samples: Some pieces of data from all over the disk; none where they cannot be had cheaply.
    """

    name: str
    info: ImageInfo
    size_bytes: int
    blocks: Callable[[], Iterator[bytes]]
    samples: Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskOptions:
    """How to take the disk.

    Attributes:
        target_format: Convert to this format; None converts only what clusters cannot run.
        scratch: Directory for temporary files, needed only to convert and for servers that cannot seek.
        access: How web servers are reached; what it says of a registry's credentials and trust is not used.
    """

    target_format: DiskFormat | None = None
    scratch: Path = Path("/var/tmp")  # noqa: S108 - the directory for large temporary files (FHS 5.15), used through mkdtemp
    access: RegistryAccess = field(default_factory=RegistryAccess)


@contextlib.contextmanager
def open_disk(location: str, *, options: DiskOptions, progress: Progress) -> Iterator[DiskSource]:
    """Open the disk at a path or an http(s) URL.

    Raises:
        ImageError: It is not safe (UnsafeImage), or of no known format.
        NotFoundError: There is none.
    """
    with contextlib.ExitStack() as stack:
        if location.startswith(("http://", "https://")):
            from registrydisk.disk_download import open_remote_disk  # requests costs a fifth of a second

            yield open_remote_disk(location, options=options, progress=progress, stack=stack)
        else:
            yield open_local_disk(Path(location), options=options, progress=progress, stack=stack)


def open_local_disk(
    path: Path, *, options: DiskOptions, progress: Progress, stack: contextlib.ExitStack, file_name: str = ""
) -> DiskSource:
    """Open a disk in a file or on a block device; what it needs ends with ``stack``.

    Args:
        file_name: What to name it after; the path's own name when empty.
    """
    file_name = file_name or path.name
    descriptor = open_regular(path)  # one for looking and reading: what is read is what was found safe
    stack.callback(os.close, descriptor)
    info = inspect_reader(FileReader(descriptor))
    require_safe(info, what=str(path))
    if must_convert(info, options):
        converted = _converted(path, info, options=options, progress=progress, stack=stack)
        stem = _without_compression(file_name).rpartition(".")[0]
        return replace(converted, name=name_in_image(stem + _ENDINGS[converted.info.format][0], converted.info.format))
    if info.compression is not Compression.NONE:
        return _compressed(file_name, descriptor, info, progress=progress)
    size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
    return DiskSource(
        name=name_in_image(file_name, info.format),
        info=info,
        size_bytes=size_bytes,
        blocks=lambda: file_blocks(descriptor, size_bytes),
        samples=lambda: file_samples(descriptor, size_bytes),
    )


def must_convert(info: ImageInfo, options: DiskOptions) -> bool:
    """Return whether the disk cannot go into the image as it is."""
    if options.target_format is not None:
        return info.format.driver != options.target_format.driver
    return info.format not in RUNNABLE_FORMATS


def name_in_image(file_name: str, disk_format: DiskFormat) -> str:
    """Return the file's name for the image: its own without a compression's ending, when that fits the format."""
    name = _without_compression(file_name)
    endings = _ENDINGS[disk_format]
    if _PLAIN_NAME.fullmatch(name) and name.endswith(endings):
        return name
    return f"disk{endings[0]}"


def _without_compression(file_name: str) -> str:
    for ending in _COMPRESSION_ENDINGS:
        file_name = file_name.removesuffix(ending)
    return file_name


@dataclass(slots=True)
class _DescriptorStream:
    """A file read from its beginning without moving the descriptor's own position."""

    descriptor: int
    offset_bytes: int = 0

    def read(self, size_bytes: int, /) -> bytes:
        chunk = os.pread(self.descriptor, size_bytes, self.offset_bytes)
        self.offset_bytes += len(chunk)
        return chunk


def _compressed(file_name: str, descriptor: int, info: ImageInfo, *, progress: Progress) -> DiskSource:
    def blocks() -> Iterator[bytes]:
        return stream_blocks(open_decompressed(_DescriptorStream(descriptor), info.compression))

    size_bytes = 0
    with progress.phase("measure") as phase:
        for block in blocks():
            size_bytes += len(block)
            phase.advance(len(block))
            if size_bytes > _LARGEST_DISK_BYTES:
                raise ImageError(f"{file_name} holds more than {format_size(_LARGEST_DISK_BYTES)}", reason="UnsafeImage")
    return DiskSource(
        name=name_in_image(file_name, info.format),
        info=replace(info, compression=Compression.NONE, file_size_bytes=size_bytes),
        size_bytes=size_bytes,
        blocks=blocks,
        samples=lambda: iter(()),
    )


def _converted(path: Path, info: ImageInfo, *, options: DiskOptions, progress: Progress, stack: contextlib.ExitStack) -> DiskSource:
    from imagekit.convert import convert  # only these formats pay for it

    target_format = options.target_format or DiskFormat.QCOW2
    scratch = Path(tempfile.mkdtemp(prefix="registrydisk-", dir=options.scratch))
    stack.callback(shutil.rmtree, scratch, ignore_errors=True)
    progress.note(f"converting {info.format} to {target_format}, in a temporary file under {options.scratch}")
    source = path
    if info.compression is not Compression.NONE:
        source = _unpacked(path, info, scratch)
        info = inspect_file(source)
        require_safe(info, what=str(path))
    converted = scratch / f"disk{_ENDINGS[target_format][0]}"
    convert(source, converted, source_format=info.format, target_format=target_format, progress=progress)
    return open_local_disk(converted, options=replace(options, target_format=None), progress=progress, stack=stack)


def _unpacked(path: Path, info: ImageInfo, scratch: Path) -> Path:
    """Write what is inside a compressed file beside, as qemu-img cannot read it as a stream."""
    target = scratch / "unpacked"
    descriptor = open_regular(path)
    try:
        stream = open_decompressed(_DescriptorStream(descriptor), info.compression)
        with target.open("xb") as file:
            while piece := stream.read(_PIECE_BYTES):
                require_free_bytes(scratch, 2 * len(piece), purpose=f"unpack {path.name}")
                file.write(piece)
    finally:
        os.close(descriptor)
    return target
