"""Few dirty pages at any time, however much is written."""

from __future__ import annotations

import ctypes
import errno
import os
import threading

from imagekit.base.units import MIB

_STEP_BYTES = 32 * MIB
# <linux/fs.h>, sync_file_range(2)
_WAIT_BEFORE = 1
_WRITE = 2
_NOT_THERE = frozenset({errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EOPNOTSUPP})


class Writeback:
    """Starts writeback every 32 MiB that are written, and waits for that of the 32 MiB before.

    A container's memory limit counts dirty pages, and the fsync at the end has little left to do. Threads may share it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._started_bytes = 0
        self._lock = threading.Lock()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]

    def wrote(self, size_bytes: int) -> None:
        """Count bytes that were written.

        Raises:
            OSError: Earlier bytes did not reach the disk.
        """
        with self._lock:
            self._started_bytes += size_bytes
            if self._started_bytes < _STEP_BYTES:
                return
            self._started_bytes = 0
        if self._libc.sync_file_range(self._descriptor, 0, 0, _WAIT_BEFORE | _WRITE) == 0:
            return
        code = ctypes.get_errno()
        if code not in _NOT_THERE:
            raise OSError(code, os.strerror(code))
        os.fdatasync(self._descriptor)
