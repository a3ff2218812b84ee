"""Locks between commands: one for each cluster, one for choosing addresses. The kernel drops those of a killed command."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from imagekit.base.errors import UsageError
from tests.cluster.names import CLUSTERS, state_directory


@contextlib.contextmanager
def all_locked() -> Iterator[None]:
    """Wait until no other command chooses addresses, and keep others waiting."""
    _prepare_directory()
    with (CLUSTERS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked(run_name: str) -> Iterator[None]:
    """Let one command at a time change a cluster, or raise UsageError; nothing stays of the lock of a cluster that is gone."""
    _prepare_directory()
    path = CLUSTERS / f".{run_name}.lock"
    descriptor = _lock(path)
    try:
        yield
    finally:
        if not state_directory(run_name).exists():
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path) -> int:
    """Return a locked descriptor of the file that has this name now: another command may have removed the one we opened."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink > 0:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise UsageError(f"another command uses {path.name[1:-5]!r}", hint="wait for it to end") from None
        os.close(descriptor)


def _prepare_directory() -> None:
    """Make the directory of all clusters; in a place that all may write to, it must be ours."""
    CLUSTERS.mkdir(mode=0o755, exist_ok=True)
    status = os.lstat(CLUSTERS)
    if status.st_uid != os.geteuid() or CLUSTERS.is_symlink():
        raise UsageError(f"{CLUSTERS} belongs to somebody else", hint="remove it")
