"""The disk: a master boot record, a FAT partition that syslinux starts from, and an ext4 partition that is the root.

Nothing is mounted and nobody needs to be root: mtools and debugfs write into image files. Identifiers, times and
owners are constants, so that equal inputs give equal bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from imagekit.base.process import ProcessLimits, run
from imagekit.base.units import MIB
from tests.guest.packages import find_file, find_tool, tool_path

EPOCH = 1735689600  # 2025-01-01T00:00:00Z, the date of everything on the disk
ROOT_LABEL = "guest-root"
DISK_SIGNATURE = 0x696D6B74
_FAT_DATE = ((2025 - 1980) << 9) | (1 << 5) | 1
_BOOT_BYTES = 32 * MIB
_ROOT_BYTES = 30 * MIB
_BOOT_START = MIB
_ROOT_START = _BOOT_START + _BOOT_BYTES
_DISK_BYTES = _ROOT_START + _ROOT_BYTES + MIB
_SECTOR = 512
_LIMITS = ProcessLimits(timeout_seconds=120)
_UUID = "2f5c1d1e-8a0b-4c57-9a3e-6d7f1c0b4e21"


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFile:
    """A file of the root partition."""

    content: bytes
    is_program: bool = False


def write_disk(target: Path, *, boot: Mapping[str, bytes], root: Mapping[str, RootFile], scratch: Path) -> None:
    """Write the raw disk ``target``.

    Args:
        boot: Name → content of the files beside the boot loader.
        root: Path → file of the root partition; missing directories are made.
        scratch: An empty directory for files on the way.
    """
    boot_image, root_image = scratch / "boot.img", scratch / "root.img"
    _make_boot_partition(boot_image, boot, scratch)
    _make_root_partition(root_image, root, scratch)
    with target.open("wb") as disk:
        disk.truncate(_DISK_BYTES)
        disk.write(_boot_record())
        for image, start in ((boot_image, _BOOT_START), (root_image, _ROOT_START)):
            disk.seek(start)
            disk.write(image.read_bytes())


def _tool(name: str, *arguments: str) -> None:
    path = tool_path()
    environment = {
        "PATH": path,
        "E2FSPROGS_FAKE_TIME": str(EPOCH),
        "MTOOLS_SKIP_CHECK": "1",
        "MKE2FS_CONFIG": "/dev/null",
        "TZ": "UTC",
    }
    run(
        [find_tool(name, path=path), *arguments],
        purpose=f"make the guest's disk with {name}",
        limits=_LIMITS,
        environment=environment,
    )


def _boot_record() -> bytes:
    """Return sector 0: syslinux's 440 bytes of code, the signature and the partition table."""
    code = find_file("syslinux-common", "usr/lib/syslinux/mbr/mbr.bin").read_bytes()
    table = _partition(0x80, 0x0E, _BOOT_START, _BOOT_BYTES) + _partition(0, 0x83, _ROOT_START, _ROOT_BYTES) + bytes(32)
    return code.ljust(440, b"\0") + struct.pack("<IH", DISK_SIGNATURE, 0) + table + b"\x55\xaa"


def _partition(flags: int, kind: int, start: int, size: int) -> bytes:
    beyond_chs = b"\xfe\xff\xff"  # "use the sector number instead"
    return struct.pack("<B3sB3sII", flags, beyond_chs, kind, beyond_chs, start // _SECTOR, size // _SECTOR)


def _make_boot_partition(image: Path, files: Mapping[str, bytes], scratch: Path) -> None:
    with image.open("wb") as file:
        file.truncate(_BOOT_BYTES)
    hidden = str(_BOOT_START // _SECTOR)
    _tool("mkfs.fat", "-F", "16", "--invariant", "-i", f"{DISK_SIGNATURE:08x}", "-n", "BOOT", "-h", hidden, str(image))
    _tool("syslinux", "--install", str(image))
    for name, content in files.items():
        source = scratch / name
        source.write_bytes(content)
        _tool("mcopy", "-i", str(image), str(source), f"::{name}")
    _fix_fat_times(image)


def _fix_fat_times(image: Path) -> None:
    """Give each entry of the root directory a constant date: mtools and syslinux write the present one."""
    content = bytearray(image.read_bytes())
    sector, reserved, copies, entries, fat_sectors = struct.unpack_from("<H1xHBH3xH", content, 11)
    begin = (reserved + copies * fat_sectors) * sector
    for offset in range(begin, begin + entries * 32, 32):
        if content[offset] and content[offset + 11] != 0x0F:  # 0x0F: a piece of a long name
            struct.pack_into("<BHHH", content, offset + 13, 0, 0, _FAT_DATE, _FAT_DATE)
            struct.pack_into("<HH", content, offset + 22, 0, _FAT_DATE)
    image.write_bytes(content)


def _make_root_partition(image: Path, files: Mapping[str, RootFile], scratch: Path) -> None:
    with image.open("wb") as file:
        file.truncate(_ROOT_BYTES)
    options = ["-t", "ext4", "-F", "-q", "-b", "1024", "-m", "0", "-L", ROOT_LABEL, "-U", _UUID]
    constants = f"hash_seed={_UUID},root_owner=0:0,lazy_itable_init=0,nodiscard"
    _tool("mke2fs", *options, "-O", "^resize_inode,^dir_index", "-E", constants, str(image))
    commands = [*(f"mkdir /{path}" for path in _directories(files))]
    for number, (path, file_) in enumerate(files.items()):
        source = scratch / f"root-{number}"
        source.write_bytes(file_.content)
        mode = 0o100755 if file_.is_program else 0o100644
        commands += [f"write {source} /{path}", f"set_inode_field /{path} mode 0{mode:o}"]
    script = scratch / "debugfs.commands"
    script.write_text("\n".join(commands) + "\n")
    _tool("debugfs", "-w", "-f", str(script), str(image))


def _directories(files: Mapping[str, RootFile]) -> list[str]:
    """Return every directory that ``files`` need, parents first."""
    mount_points = ["proc", "sys", "dev", "tmp", "run", "root", "var/lib"]
    paths = [parent for path in [*files, *(f"{point}/x" for point in mount_points)] for parent in Path(path).parents]
    return sorted({str(path) for path in paths} - {"."}, key=lambda path: (path.count("/"), path))
