"""The directory of one run: private, short of name because sockets are in it, and found again when a run was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from imagekit.base.errors import ImagekitError
from imagekit.base.files import open_regular

BASE = Path("/var/tmp")  # noqa: S108 -- large and on disk, for overlays; what we make in it is ours alone
_PREFIX = "virt-launcher-"
_LOCK = "lock"
_LONGEST_NUMBER = 20


@contextlib.contextmanager
def run_directory(*, base: Path = BASE) -> Iterator[Path]:
    """Make the directory of a run, and remove it at the end; what killed runs left is removed first."""
    remove_leftovers(base=base)
    # It gets its final name when it is locked: a directory without a holder is always a leftover.
    made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=base))
    with (made / _LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        final = made.with_name(made.name.removeprefix("."))
        made.chmod(0o711)  # root's libvirtd runs as another user, in a directory of its own in here
        made.rename(final)
        try:
            yield final
        finally:
            shutil.rmtree(final, ignore_errors=True)


def remove_leftovers(*, base: Path = BASE) -> None:
    """Remove the directories of runs of ours that no longer live, and end what still runs in them."""
    for path in base.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                continue
            descriptor = os.open(path / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held: that run lives
                _end_processes(path)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _end_processes(path: Path) -> None:
    """Kill the processes that the run's pid files name, if their command line still speaks of the directory."""
    for pid_file in path.rglob("*.pid"):
        with contextlib.suppress(OSError, ValueError, ImagekitError):
            descriptor = open_regular(pid_file)  # what ran in there may have put anything under this name
            with open(descriptor, "rb") as file:
                pid = int(file.read(_LONGEST_NUMBER))
            if os.fsencode(path) in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
