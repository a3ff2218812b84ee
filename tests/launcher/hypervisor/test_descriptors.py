"""Disks are opened once, and nothing but a file or device of the kind that was said."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from imagekit.base.errors import ImagekitError, NotFoundError, UsageError
from imagekit.image import DiskFormat
from launcher.hypervisor.descriptors import open_disks
from launcher.spec import Base, Bus, Disk


def opened(*disks: Disk) -> dict[str, int]:
    """Return the access mode of each descriptor."""
    import fcntl

    with contextlib.ExitStack() as stack:
        return {group: fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE for group, descriptor in open_disks(disks, stack)}


def test_modes_follow_the_specification(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(b"")
    overlay = Disk(path=f"{tmp_path}/a", format=DiskFormat.QCOW2, base=Base(path=f"{tmp_path}/b", format=DiskFormat.RAW))
    seed = Disk(path=f"{tmp_path}/c", format=DiskFormat.ISO, bus=Bus.SATA, is_cdrom=True)
    assert opened(overlay, seed) == {"disk0": os.O_RDWR, "base0": os.O_RDONLY, "disk1": os.O_RDONLY}


def test_descriptors_are_closed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    before = os.listdir("/proc/self/fd")
    opened(Disk(path=f"{tmp_path}/a", format=DiskFormat.RAW))
    with pytest.raises(UsageError):
        opened(Disk(path=f"{tmp_path}/a", format=DiskFormat.RAW), Disk(path=f"{tmp_path}", format=DiskFormat.RAW, is_readonly=True))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "device", "missing"])
def test_anything_else_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "disk"
    match kind:
        case "link":
            (tmp_path / "target").write_bytes(b"")
            path.symlink_to(tmp_path / "target")
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            path = Path("/dev/null")
    error: type[ImagekitError] = NotFoundError if kind == "missing" else UsageError
    with pytest.raises(error):
        opened(Disk(path=str(path), format=DiskFormat.RAW))


def test_file_is_no_block_device(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(UsageError, match="not a block device"):
        opened(Disk(path=f"{tmp_path}/a", format=DiskFormat.RAW, is_block_device=True))
