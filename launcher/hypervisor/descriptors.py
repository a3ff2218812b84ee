"""Disks as open descriptors: a path is looked up once, its last part is never followed, and its kind is checked."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from imagekit.base.errors import AccessError, NotFoundError, UsageError
from launcher.domain.disks import base_group, disk_group
from launcher.spec import Disk


def open_disks(disks: tuple[Disk, ...], opened: contextlib.ExitStack) -> Iterator[tuple[str, int]]:
    """Yield the group and the descriptor of each file among the disks and bases; ``opened`` closes them.

    Block devices are only checked: libvirt opens them by their path.

    Raises:
        NotFoundError: There is no such file.
        AccessError: It may not be opened as the machine needs it.
        UsageError: It is a link, or not the kind of file that the specification says.
    """
    for number, disk in enumerate(disks):
        is_readonly = disk.is_readonly or disk.is_cdrom
        descriptor = _open(disk.path, os.O_RDONLY if is_readonly else os.O_RDWR)
        opened.callback(os.close, descriptor)
        _require_kind(disk.path, descriptor, is_block_device=disk.is_block_device)
        if not disk.is_block_device:
            yield disk_group(number), descriptor
        if disk.base is not None:
            base = _open(disk.base.path, os.O_RDONLY)
            opened.callback(os.close, base)
            _require_kind(disk.base.path, base, is_block_device=False)
            yield base_group(number), base


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no disk {path}") from error
    except PermissionError as error:
        raise AccessError(f"may not open the disk {path}", reason="Forbidden") from error
    except OSError as error:
        raise UsageError(f"cannot open the disk {path}: {error.strerror}", hint="name the file itself, not a link to it") from error


def _require_kind(path: str, descriptor: int, *, is_block_device: bool) -> None:
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISBLK(mode) if is_block_device else stat.S_ISREG(mode)):
        raise UsageError(f"the disk {path} is not a {'block device' if is_block_device else 'regular file'}")
