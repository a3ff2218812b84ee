"""Files that someone else reads: written beside, synced, renamed; never followed through a link."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from imagekit.base.errors import ImagekitError, NoSpaceError, NotFoundError, UsageError
from imagekit.base.units import format_size


def fsync_directory(path: Path) -> None:
    """Make the names in the directory ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_path(target: Path) -> Path:
    """Return the name under which ``target`` is written until it is complete; the same for every run, to resume."""
    return target.with_name(f".{target.name}.partial")


def publish(partial: Path, target: Path) -> None:
    """Give the complete, synced file ``partial`` its final name, durably."""
    os.replace(partial, target)
    fsync_directory(target.parent)


@contextlib.contextmanager
def atomic_file(target: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a file that appears as ``target`` when the context ends well, and not at all otherwise."""
    partial = partial_path(target)
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "r+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish(partial, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        raise


def write_file(target: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file atomically and durably."""
    with atomic_file(target, mode=mode) as file:
        file.write(content)


def open_regular(path: Path) -> int:
    """Return a descriptor of the regular file or block device ``path``, read-only; its last part is not followed.

    Raises:
        NotFoundError: There is none.
        UsageError: It is a link, a directory, a pipe or a character device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except OSError as error:
        raise UsageError(f"cannot open {path}: {error.strerror}", hint="name the file itself, not a link to it") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return descriptor
    os.close(descriptor)
    raise UsageError(f"{path} is neither a regular file nor a block device")


def free_bytes(directory: Path) -> int:
    """Return what an ordinary user may still write in the file system of ``directory``."""
    usage = os.statvfs(directory)
    return usage.f_bavail * usage.f_frsize


def require_free_bytes(directory: Path, needed_bytes: int, *, purpose: str) -> None:
    """Raise NoSpaceError when the file system of ``directory`` lacks ``needed_bytes``."""
    available_bytes = free_bytes(directory)
    if available_bytes < needed_bytes:
        raise NoSpaceError(
            f"no space to {purpose}: {directory} has {format_size(available_bytes)} free, {format_size(needed_bytes)} needed",
            hint=f"free at least {format_size(needed_bytes - available_bytes)} there, or choose another place",
        )


def translate_os_error(error: OSError, *, doing: str) -> ImagekitError:
    """Return the toolkit's error for a failed system call on a user's file."""
    message = f"cannot {doing}: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(message, hint="free some space there, or choose another place")
    if error.errno == errno.ENOENT:
        return NotFoundError(message)
    return ImagekitError(message, reason="IOError" if error.errno == errno.EIO else "")
