"""Files that have no final name yet, safe against other writers beside us and against being killed.

Each writer holds a lock (flock(2)) on its file, which the kernel drops when the writer ends in whatever way. So a
partial file that can be locked belongs to nobody, and whoever comes next removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
from pathlib import Path

from imagekit.base.files import fsync_directory, translate_os_error


class PartialFile:
    """A file that is being written; it gets its name at the end, by ``publish``.

    The descriptor is the caller's to write to, and is closed by ``publish`` and by ``discard``.
    """

    def __init__(self, directory: Path, *, stem: str) -> None:
        try:
            self._path, self.descriptor = _create(directory, stem)
        except OSError as error:
            raise translate_os_error(error, doing=f"write into {directory}") from error
        self._is_open = True

    def publish(self, target: Path) -> None:
        """Make the file durable under its final name, in the same file system."""
        try:
            os.fsync(self.descriptor)
            os.replace(self._path, target)
            fsync_directory(target.parent)
        except OSError as error:
            self.discard()
            raise translate_os_error(error, doing=f"write {target}") from error
        self._close()

    def discard(self) -> None:
        """Forget the file; safe to call twice and after ``publish``."""
        if self._is_open:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
            self._close()

    def _close(self) -> None:
        self._is_open = False
        os.close(self.descriptor)


def remove_stale(directory: Path, *, stem: str) -> None:
    """Remove the partial files of writers that are gone."""
    for path in directory.glob(f".{glob.escape(stem)}.*.partial"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(descriptor)


def _create(directory: Path, stem: str) -> tuple[Path, int]:
    while True:
        path = directory / f".{stem}.{secrets.token_hex(8)}.partial"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Someone who cleans up may have seen the file before the lock; then it has no name any more.
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)
