"""Files that someone else reads: written beside, synced, renamed; never followed through a link."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from imagekit.base.errors import AccessError, ImagekitError, NoSpaceError, NotFoundError, UsageError
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
    """Open a file that appears as ``target`` when the context ends well, and not at all otherwise.

    Raises:
        UsageError: Another process is writing ``target``; what a dead one left is removed.
    """
    partial = partial_path(target)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(_claimed(partial, lambda: os.open(partial, flags, mode), target=target), "r+b") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            publish(partial, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()
            raise


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield the path where a program shall write, and sync, a file that appears as ``target`` like an atomic_file.

    The path lies in a directory of our own beside ``target``, and ends in the same name: some formats write their
    file's name into themselves.

    Raises:
        UsageError: Another process is writing ``target``; what a dead one left is removed.
    """
    directory = target.with_name(f".{target.name}.partial.d")

    def create() -> int:
        directory.mkdir(mode=0o700)
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    descriptor = _claimed(directory, create, target=target)
    try:
        yield directory / target.name
        publish(directory / target.name, target)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


def _claimed(partial: Path, create: Callable[[], int], *, target: Path) -> int:
    """Return the descriptor of a new, locked ``partial``, of which only one process at a time holds one."""
    while True:
        try:
            descriptor = create()
        except FileExistsError:
            _remove_abandoned(partial, target=target)
            continue
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no directory {partial.parent}", hint="make it first") from error
        except OSError as error:
            raise translate_os_error(error, doing=f"write {target}") from error
        if _is_locked_here(descriptor, partial, target=target):
            return descriptor


def _remove_abandoned(partial: Path, *, target: Path) -> None:
    """Remove what a run that died left as ``partial``; the kernel released its lock."""
    try:
        descriptor = os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{partial} is in the way of writing {target}: {error.strerror}", hint="remove it") from error
    if not _is_locked_here(descriptor, partial, target=target):
        return
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            shutil.rmtree(partial)
        else:
            partial.unlink()
    finally:
        os.close(descriptor)


def _is_locked_here(descriptor: int, path: Path, *, target: Path) -> bool:
    """Lock ``descriptor``; close it and return False when ``path`` is, by now, something else."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UsageError(f"another process is writing {target}", reason="InUse", hint="wait until it has ended") from error
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False)):
            return True
    os.close(descriptor)
    return False


def write_file(target: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file atomically and durably."""
    with atomic_file(target, mode=mode) as file:
        file.write(content)


def open_regular(path: Path) -> int:
    """Return a descriptor of the regular file or block device ``path``, read-only; its last part is not followed.

    Raises:
        NotFoundError: There is none.
        AccessError: It may not be read.
        UsageError: It is a link, a directory, a pipe, a socket or a character device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}", hint="check the name and the directory") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(f"{path} is a symbolic link", hint="name the file itself: links are not followed") from error
        if error.errno == errno.ENXIO:
            raise _not_regular(path) from error
        raise translate_os_error(error, doing=f"open {path}") from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return descriptor
    os.close(descriptor)
    raise _not_regular(path)


def _not_regular(path: Path) -> UsageError:
    return UsageError(f"{path} is neither a regular file nor a block device", hint="name the file with the image")


@contextlib.contextmanager
def opened_regular(path: Path) -> Iterator[int]:
    """Open like open_regular, and close again."""
    descriptor = open_regular(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


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
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(message, hint="check the name and the directory")
    if error.errno == errno.EROFS:
        return AccessError(message, reason="Forbidden", hint="mount it for writing, or choose another place")
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessError(message, reason="Forbidden", hint="look at the owner and the mode of the file and its directories")
    return ImagekitError(message, reason="IOError" if error.errno == errno.EIO else "")
