"""qemu-img run with limits: what it may use, what its endings mean, and its progress.

Every function takes an ``ImageFile``: the format is known, by the inspector's verdict or the user's word, before the
program starts. Questions are bounded in memory and time, since an image may be made to cost much of both. Work that
is as long as the disk is ended when it makes no progress.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from imagekit.base.errors import AccessError, ImagekitError, NoSpaceError, ToolError, UsageError
from imagekit.base.process import Completed, ProcessLimits, run
from imagekit.base.progress import Progress
from imagekit.base.units import GIB, MIB
from imagekit.image import DiskFormat
from imagekit.qemu_img.arguments import (
    ImageFile,
    TargetOptions,
    check_arguments,
    compare_arguments,
    convert_arguments,
    create_arguments,
    info_arguments,
    map_arguments,
    measure_arguments,
    overlay_arguments,
    resize_arguments,
)
from imagekit.qemu_img.results import (
    CheckReport,
    Comparison,
    DiskFacts,
    Extent,
    Measurement,
    ProgressReader,
    parse_check,
    parse_compare,
    parse_info,
    parse_map,
    parse_measure,
)

QUESTION_LIMITS = ProcessLimits(timeout_seconds=60, cpu_seconds=30, address_space_bytes=GIB)
_SECTOR_BYTES = 512
_MAP_OUTPUT_BYTES = 64 * MIB
_LONG_WORK_MEMORY_BYTES = 4 * GIB  # mostly the stacks of its threads
_SLOWEST_BYTES_PER_SECOND = 2 * MIB
_LEAST_STALL_SECONDS = 300.0
_CHECK_CORRUPT, _CHECK_LEAKS, _CHECK_UNSUPPORTED = 2, 3, 63
_ENDINGS = (
    (r": No space left on device$", NoSpaceError, "", "free some space there, or choose another place"),
    (r": Disk quota exceeded$", NoSpaceError, "", "free some of the quota, or choose another place"),
    (r"L1 table: File too large$", UsageError, "", "choose larger clusters, or a smaller disk"),
    (
        r": (The i|I|Unsupported VDI i)mage size( is)? (too large|\(size)",
        UsageError,
        "",
        "choose a smaller disk, or another format",
    ),
    (r": File too large$", NoSpaceError, "TooLarge", "choose a place for larger files, unless the image is broken"),
    (r": (Permission denied|Read-only file system)$", AccessError, "Forbidden", "look at the owner and the mode of the file"),
    (r"^Is another process using the image", ImagekitError, "InUse", "shut the virtual machine down that uses the image"),
)


def _call(
    argv: Sequence[str],
    *,
    purpose: str,
    limits: ProcessLimits,
    accepted_exit_codes: frozenset[int] = frozenset({0}),
    on_output: Callable[[bytes], None] | None = None,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run qemu-img; it only tells in words why it failed, and here they become an error's type."""
    try:
        return run(
            argv,
            purpose=purpose,
            limits=limits,
            accepted_exit_codes=accepted_exit_codes,
            on_output=on_output,
            pass_fds=pass_fds,
        )
    except ToolError as error:
        for words, family, reason, hint in _ENDINGS:
            if re.search(words, error.said, re.MULTILINE):
                raise family(error.message, reason=reason, hint=hint) from None  # it would only say the same again
        if error.reason == "ToolCrashed" and not error.hint:
            error.hint = "it may have met a limit on memory or time: an image that needs so much is broken, or an attack"
        raise


def long_limits(size_bytes: int, *, file_size_bytes: int | None = None) -> ProcessLimits:
    """Return the limits of work on ``size_bytes`` of disk: no progress is an error, slowness is not.

    qemu-img tells its progress once per cent of the disk, so the patience grows with it.
    """
    return ProcessLimits(
        timeout_seconds=3600 + size_bytes / _SLOWEST_BYTES_PER_SECOND,
        stall_seconds=max(_LEAST_STALL_SECONDS, size_bytes / 100 / _SLOWEST_BYTES_PER_SECOND),
        address_space_bytes=_LONG_WORK_MEMORY_BYTES,
        file_size_bytes=file_size_bytes,
    )


def read_facts(image: ImageFile) -> DiskFacts:
    """Return an image's sizes."""
    return parse_info(_call(info_arguments(image), purpose=f"read {image.path}", limits=QUESTION_LIMITS).stdout)


def convert(
    source: ImageFile,
    target: Path,
    *,
    target_format: DiskFormat,
    size_bytes: int,
    options: TargetOptions,
    progress: Progress,
    pass_fds: Sequence[int] = (),
) -> None:
    """Write ``source`` as the new image ``target``, and sync it.

    Args:
        target: Written in place; who wants it to appear complete names a path beside it.
        size_bytes: The guest's size, for progress and limits.
        pass_fds: Descriptors that ``source`` speaks of, as ``/proc/self/fd/N``.
    """
    argv = convert_arguments(source, target, target_format=target_format, options=options)
    limits = long_limits(size_bytes, file_size_bytes=_largest_file_bytes(size_bytes, target_format))
    with progress.phase("convert", size_bytes) as phase:
        reader = ProgressReader(total_bytes=size_bytes, advance=phase.advance)
        purpose = f"convert {source.path} to {target_format.value}"
        _call(argv, purpose=purpose, limits=limits, on_output=reader.feed, pass_fds=pass_fds)
    _sync(target)  # qemu-img convert skips flushes unless told otherwise; one at the end is faster than many


def _largest_file_bytes(size_bytes: int, target_format: DiskFormat) -> int:
    """Return what a complete image can need: the disk, and tables that stay under an eighth of it with 512-byte clusters."""
    whole_sectors_bytes = -(-size_bytes // _SECTOR_BYTES) * _SECTOR_BYTES
    return whole_sectors_bytes if target_format is DiskFormat.RAW else size_bytes + size_bytes // 8 + 64 * MIB


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create(target: Path, *, target_format: DiskFormat, size_bytes: int, options: TargetOptions) -> None:
    """Write an empty disk as ``target``, and sync it."""
    argv = create_arguments(target, target_format=target_format, size_bytes=size_bytes, options=options)
    is_filling = options.preallocation == "full"
    limits = ProcessLimits(timeout_seconds=3600 + size_bytes / _SLOWEST_BYTES_PER_SECOND) if is_filling else QUESTION_LIMITS
    _call(argv, purpose=f"create {target.name}", limits=limits)
    _sync(target)


def create_overlay(target: Path, *, backing: Path, backing_format: DiskFormat, size_bytes: int | None = None) -> None:
    """Write ``target``, a qcow2 whose unwritten clusters come from ``backing``.

    Args:
        backing: Is named in the overlay by its absolute path, and with its format, so that nobody has to guess it.
        size_bytes: The guest's size; the backing disk's when None.
    """
    image = ImageFile(path=backing, format=backing_format, is_device=backing.is_block_device(), is_shared=True)
    size_bytes = read_facts(image).virtual_size_bytes if size_bytes is None else size_bytes
    argv = overlay_arguments(target, backing=image, size_bytes=size_bytes)
    _call(argv, purpose=f"create an overlay of {backing}", limits=QUESTION_LIMITS)


def resize(image: ImageFile, *, size_bytes: int, is_shrinking: bool) -> None:
    """Change the guest's size in place; QEMU's lock refuses an image in use."""
    argv = resize_arguments(image, size_bytes=size_bytes, is_shrinking=is_shrinking)
    # A qcow2 moves and frees clusters when it shrinks, which takes as long as the disk is large.
    limits = ProcessLimits(timeout_seconds=3600) if is_shrinking else QUESTION_LIMITS
    _call(argv, purpose=f"resize {image.path}", limits=limits)
    if image.path.is_file():
        _sync(image.path)


def check(image: ImageFile, *, file_size_bytes: int, repair: str | None = None) -> CheckReport:
    """Return what is wrong in an image's tables; ``repair`` mends ``leaks`` or ``all``."""
    codes = frozenset({0, _CHECK_CORRUPT, _CHECK_LEAKS, _CHECK_UNSUPPORTED})
    limits = ProcessLimits(
        timeout_seconds=600 + file_size_bytes / _SLOWEST_BYTES_PER_SECOND,
        address_space_bytes=GIB + file_size_bytes // 256,  # it counts references: two bytes for a cluster of 512 at least
        # To mend a table that points behind the file the file would be made as long, however long that is.
        file_size_bytes=file_size_bytes + file_size_bytes // 8 + 64 * MIB,
    )
    argv = check_arguments(image, repair=repair)
    completed = _call(argv, purpose=f"check {image.path}", limits=limits, accepted_exit_codes=codes)
    if completed.exit_code == _CHECK_UNSUPPORTED:
        return CheckReport(is_supported=False)
    return parse_check(completed.stdout)


def read_map(image: ImageFile) -> tuple[Extent, ...]:
    """Return where an image has data, in the order of the disk; more than 64 MiB of answer is an error."""
    limits = ProcessLimits(timeout_seconds=600, address_space_bytes=GIB, output_bytes=_MAP_OUTPUT_BYTES)
    return parse_map(_call(map_arguments(image), purpose=f"map {image.path}", limits=limits).stdout)


def measure(image: ImageFile, *, target_format: DiskFormat, options: TargetOptions) -> Measurement:
    """Return how large ``image`` becomes as raw or qcow2."""
    argv = measure_arguments(image, target_format=target_format, options=options)
    limits = ProcessLimits(timeout_seconds=600, address_space_bytes=GIB)
    return parse_measure(_call(argv, purpose=f"measure {image.path}", limits=limits).stdout)


def compare(first: ImageFile, second: ImageFile, *, size_bytes: int, progress: Progress) -> Comparison:
    """Return whether guests see the same in two disks.

    Args:
        size_bytes: The larger guest's size, for progress and limits.
    """
    with progress.phase("compare", size_bytes) as phase:
        reader = ProgressReader(total_bytes=size_bytes, advance=phase.advance)
        completed = _call(
            compare_arguments(first, second),
            purpose=f"compare {first.path} with {second.path}",
            limits=long_limits(size_bytes),
            accepted_exit_codes=frozenset({0, 1}),
            on_output=reader.feed,
        )
    return parse_compare(completed.exit_code, reader.printed)
