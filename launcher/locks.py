"""One writer for a disk: the second is refused before anything starts, with words that say so."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from imagekit.base.errors import ImagekitError
from imagekit.base.files import open_regular


@contextlib.contextmanager
def disk_lock(path: Path, *, is_shared: bool = False) -> Iterator[None]:
    """Hold the advisory lock (flock(2)) of the disk ``path`` while the context lasts; QEMU's own lock comes on top.

    Raises:
        ImagekitError: Another machine or importer holds it, with reason InUse.
        NotFoundError: There is no such disk.
        UsageError: It is neither a regular file nor a block device.
    """
    descriptor = open_regular(path)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        # NFS makes a byte-range lock of flock, which needs a writable descriptor and would stand in QEMU's own way.
        if error.errno == errno.EWOULDBLOCK:
            os.close(descriptor)
            hint = "stop the machine that uses it, or boot a copy"
            raise ImagekitError(f"the disk {path} is in use", reason="InUse", hint=hint, temporary=True) from None
    except BaseException:
        os.close(descriptor)
        raise
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def name_lock(path: Path) -> Iterator[None]:
    """Wait for, and hold, the lock of a name that is about to be made: the file ``path`` with ``.lock`` behind it."""
    with path.with_name(f"{path.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
