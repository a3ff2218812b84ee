"""Where a disk goes: ``disk.img`` in a volume's directory, a file, or a block device.

A file is filled under a hidden name and gets its own when it is complete and durable; everything is done relative to
the directory's descriptor and never through a link, because what is in a volume may have been put there by a guest. A
block device is filled in place: its first MiB stays zero until everything else is durable.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Protocol

from cdi.journal import Journal
from imagekit.base.errors import ImagekitError, NotFoundError, UsageError
from imagekit.base.files import free_bytes, partial_path, translate_os_error
from imagekit.base.units import MIB

DISK_NAME = "disk.img"
_DISK_MODE = 0o660  # a machine runs as another user of the volume's group
_HELD_BACK_BYTES = MIB
_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ATTEMPTS = 5
_DEVICE_SCRATCH = Path("/var/tmp")  # noqa: S108 - the directory for large temporary files (FHS 5.15), used without names


class TargetKind(StrEnum):
    """What is filled."""

    FILE = "file"
    DEVICE = "device"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetObservation:
    """What a plan needs to know of a target; ``capacity_bytes`` is what fits, without growing anything."""

    kind: TargetKind
    path: Path
    capacity_bytes: int
    scratch_free_bytes: int


class Target(Protocol):
    """A place that is held for one disk."""

    @property
    def path(self) -> Path:
        """Where the disk will be found."""
        ...

    @property
    def descriptor(self) -> int:
        """What is written to."""
        ...

    @property
    def scratch(self) -> Path:
        """A directory for temporary files."""
        ...

    @property
    def conversion_path(self) -> Path:
        """Where qemu-img writes a raw disk, which may exist already; ours alone while the target is held."""
        ...

    @property
    def journal(self) -> Journal | None:
        """The journal beside the target; None where an import cannot be resumed."""
        ...

    def observe(self) -> TargetObservation:
        """Return what the target is now."""
        ...

    def allocated_bytes(self) -> int:
        """Return what the target occupies."""
        ...

    def require_not(self, source_descriptor: int) -> None:
        """Raise UsageError when the source would be overwritten while it is read."""
        ...

    def prepare(self, *, keep: bool) -> None:
        """Make ready for writing; ``keep`` what an earlier run wrote."""
        ...

    def publish(self) -> None:
        """Make the complete, durable disk appear."""
        ...

    def abandon(self, *, keep: bool) -> None:
        """Take back what was written, or ``keep`` it for the next run."""
        ...


@contextlib.contextmanager
def open_target(location: str, *, overwrite: bool, scratch: Path | None) -> Iterator[Target]:
    """Hold a place for one disk, against every other import.

    Args:
        location: A path as the user wrote it; one that ends with a slash must be a directory.

    Raises:
        UsageError: There is a disk already (TargetExists), another import or a mount (TargetBusy), or something that
            must not be replaced (UnsafeTarget).
        NotFoundError: The directory does not exist.
    """
    if not location:
        raise UsageError("no target is named", hint="name a directory, a file or a block device")
    if scratch is not None and not scratch.is_dir():
        raise NotFoundError(f"there is no directory {scratch} for temporary copies", hint="create it first, or leave --scratch out")
    path = Path(location)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as error:
        raise translate_os_error(error, doing=f"look at {path}") from error
    with contextlib.ExitStack() as stack:
        if stat.S_ISBLK(mode):
            yield _open_device(path, scratch=scratch, stack=stack)
        elif stat.S_ISDIR(mode):
            yield _open_file(path, DISK_NAME, overwrite=overwrite, scratch=scratch, stack=stack)
        elif location.endswith("/") or not path.name:
            raise NotFoundError(f"there is no directory {path}", hint="create the volume's directory first")
        else:
            yield _open_file(path.parent, path.name, overwrite=overwrite, scratch=scratch, stack=stack)


def open_spill(target: Target) -> BinaryIO:
    """Open a temporary file without a name, beside the target."""
    return tempfile.TemporaryFile(dir=target.scratch)


class _FileTarget:
    """A file that is written as ``.NAME.partial`` and locked while it is."""

    def __init__(self, directory: Path, name: str, *, scratch: Path | None, overwrite: bool) -> None:
        self.path = directory / name
        self.scratch = scratch or directory
        self._name = name
        self.conversion_path = partial_path(self.path)
        self._partial = self.conversion_path.name
        self._overwrite = overwrite
        self._directory_path = directory
        self._directory = -1
        self.descriptor = -1
        self.journal: Journal | None = None

    def open(self, stack: contextlib.ExitStack) -> None:
        """Open the directory, refuse what must not be replaced, and lock the partial file."""
        try:
            self._directory = os.open(self._directory_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no directory {self._directory_path}", hint="create it first") from error
        except OSError as error:
            raise translate_os_error(error, doing=f"open the directory {self._directory_path}") from error
        stack.callback(os.close, self._directory)
        self._require_replaceable()
        try:
            self.descriptor = _lock_partial(self._directory, self._partial, path=self.path)
        except OSError as error:
            raise translate_os_error(error, doing=f"write in {self._directory_path}") from error
        stack.callback(os.close, self.descriptor)
        self.journal = Journal(self._directory, f".{self._name}.journal")
        stack.callback(self.journal.close)
        stack.callback(self._forget_empty)
        self._require_replaceable()  # again: another import may have ended before the lock was ours

    def observe(self) -> TargetObservation:
        free = free_bytes(self._directory_path)
        return TargetObservation(
            kind=TargetKind.FILE,
            path=self.path,
            capacity_bytes=free + self.allocated_bytes(),
            scratch_free_bytes=free_bytes(self.scratch),
        )

    def allocated_bytes(self) -> int:
        return os.fstat(self.descriptor).st_blocks * 512

    def require_not(self, source_descriptor: int) -> None:
        if os.path.samestat(os.fstat(source_descriptor), os.fstat(self.descriptor)):
            raise UsageError(f"{self.conversion_path} cannot be imported: it is what is written", hint="rename it first")

    def prepare(self, *, keep: bool) -> None:
        if keep:
            return
        assert self.journal is not None
        # The journal first, durably: what it says must never be believed of the bytes that come now.
        self.journal.remove()
        os.fsync(self._directory)
        os.ftruncate(self.descriptor, 0)

    def publish(self) -> None:
        self._require_replaceable()
        if not _is_ours(self.descriptor, self._directory, self._partial):
            raise ImagekitError(f"{self.conversion_path} was replaced during the import", reason="UnsafeTarget")
        os.fchmod(self.descriptor, _DISK_MODE)
        os.fsync(self.descriptor)
        assert self.journal is not None
        self.journal.remove()  # before the rename: a disk that is complete has no journal beside it
        os.replace(self._partial, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        os.fsync(self._directory)

    def abandon(self, *, keep: bool) -> None:
        assert self.journal is not None
        if keep:
            self.journal.close()
            return
        self.journal.remove()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._partial, dir_fd=self._directory)

    def _require_replaceable(self) -> None:
        try:
            mode = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISREG(mode):
            raise UsageError(
                f"{self.path} is not a regular file and is not replaced",
                reason="UnsafeTarget",
                hint="a link or special file in a volume may point out of it: remove it first",
            )
        if not self._overwrite:
            raise UsageError(f"{self.path} exists already", reason="TargetExists", hint="use --overwrite to replace it")

    def _forget_empty(self) -> None:
        """Leave no trace of an import that was refused before it wrote; what an earlier run left to resume stays."""
        if os.fstat(self.descriptor).st_size == 0 and _is_ours(self.descriptor, self._directory, self._partial):
            os.unlink(self._partial, dir_fd=self._directory)


class _DeviceTarget:
    """A block device, held exclusively: mounted ones and those in use are refused by the kernel (open(2), O_EXCL)."""

    journal = None

    def __init__(self, path: Path, *, descriptor: int, scratch: Path | None) -> None:
        self.path = path
        self.descriptor = descriptor
        self.scratch = scratch or _DEVICE_SCRATCH
        self.conversion_path = self.scratch / f".cdi-{os.fstat(descriptor).st_rdev:x}.partial"

    def observe(self) -> TargetObservation:
        return TargetObservation(
            kind=TargetKind.DEVICE,
            path=self.path,
            capacity_bytes=os.lseek(self.descriptor, 0, os.SEEK_END),
            scratch_free_bytes=free_bytes(self.scratch),
        )

    def allocated_bytes(self) -> int:
        return os.lseek(self.descriptor, 0, os.SEEK_END)

    def require_not(self, source_descriptor: int) -> None:
        source = os.fstat(source_descriptor)
        if stat.S_ISBLK(source.st_mode) and source.st_rdev == os.fstat(self.descriptor).st_rdev:
            raise UsageError(f"{self.path} cannot be imported into itself", hint="name another target")

    def prepare(self, *, keep: bool) -> None:
        """Take away the old disk's boot sector and partition table: half a new disk must not look like a whole old one."""
        self._clear_head()

    def publish(self) -> None:
        os.fsync(self.descriptor)

    def abandon(self, *, keep: bool) -> None:
        self._clear_head()

    def _clear_head(self) -> None:
        capacity_bytes = os.lseek(self.descriptor, 0, os.SEEK_END)
        os.pwrite(self.descriptor, bytes(min(_HELD_BACK_BYTES, capacity_bytes)), 0)
        os.fdatasync(self.descriptor)


def _open_file(directory: Path, name: str, *, overwrite: bool, scratch: Path | None, stack: contextlib.ExitStack) -> Target:
    target = _FileTarget(directory, name, scratch=scratch, overwrite=overwrite)
    target.open(stack)
    return target


def _open_device(path: Path, *, scratch: Path | None, stack: contextlib.ExitStack) -> Target:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            hint = "unmount it, or end the program that uses it"
            raise UsageError(f"the device {path} is in use", reason="TargetBusy", hint=hint) from error
        raise translate_os_error(error, doing=f"open the device {path}") from error
    stack.callback(os.close, descriptor)
    if not stat.S_ISBLK(os.fstat(descriptor).st_mode):
        raise UsageError(f"{path} is no block device any more", reason="UnsafeTarget")
    return _DeviceTarget(path, descriptor=descriptor, scratch=scratch)


def _lock_partial(directory: int, name: str, *, path: Path) -> int:
    """Open and lock the partial file; it is the one that has the name now, and has no other name."""
    for _ in range(_ATTEMPTS):
        descriptor = _open_partial(directory, name)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            hint = "wait until it ends, or end it"
            raise UsageError(f"another import writes {path}", reason="TargetBusy", hint=hint) from None
        if _is_ours(descriptor, directory, name):
            return descriptor
        os.close(descriptor)
    raise ImagekitError(
        f"{path.parent / name} changes all the time", reason="UnsafeTarget", hint="is another import at work there?"
    )


def _open_partial(directory: int, name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | _SAFELY
    try:
        descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        os.unlink(name, dir_fd=directory)  # a link or a pipe that someone planted
        return os.open(name, flags | os.O_EXCL, 0o600, dir_fd=directory)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
    return os.open(name, flags | os.O_EXCL, 0o600, dir_fd=directory)


def _is_ours(descriptor: int, directory: int, name: str) -> bool:
    try:
        named = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(descriptor))
