"""Put the guest together: Debian's cloud kernel, busybox, and the scripts in ``files/``.

The guest shows a login prompt on its first serial port (``root``, no password), takes its address by DHCP, powers off
when its ACPI button is pressed, counts its boots on its own disk, and serves ``/`` on port 80.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from imagekit.base.process import ProcessLimits, run
from tests.guest.disk import RootFile, write_disk
from tests.guest.initrd import Entry, directory, make_initrd, program
from tests.guest.packages import Kernel, find_file, find_kernel
from tests.support.services import cache_directory

_HERE = Path(__file__).parent
_BUSYBOX = ("busybox-static", "bin/busybox")
_LOADER = ("syslinux-common", "usr/lib/syslinux/mbr/mbr.bin")
_BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ata_piix", "ahci")
_LATE_MODULES = ("virtio_net", "e1000", "button", "evdev", "pvpanic", "pvpanic_pci", "pvpanic_mmio", "virtio_rng")
_PROGRAMS = {"sbin/init": "init", "etc/rc": "rc", "etc/powerbutton": "powerbutton", "etc/udhcpc": "udhcpc"}
_CONFIGURATION = {"etc/inittab": "inittab", "etc/passwd": "passwd", "etc/group": "group", "etc/issue": "issue"}


def build_guest(target: Path) -> Path:
    """Write the guest's disk, a bootable qcow2 file, to ``target`` and return ``target``.

    It is built once for each set of inputs and kept in the cache; equal inputs give equal bytes.
    """
    kernel = find_kernel()
    cached = cache_directory() / "guest" / f"{_key(kernel)}.qcow2"
    cached.parent.mkdir(parents=True, exist_ok=True)
    with (cached.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cached.exists():
            _build(cached, kernel)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(cached, target)
    return target


def _key(kernel: Kernel) -> str:
    """Return a name for the inputs: what is on the disk, and the code that puts it there."""
    paths = [kernel.image, find_file(*_BUSYBOX), find_file(*_LOADER), *sorted(_HERE.glob("*.py")), *sorted(_HERE.glob("files/*"))]
    state = hashlib.sha256()
    for path in paths:
        state.update(hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()[:24]


def _build(cached: Path, kernel: Kernel) -> None:
    with tempfile.TemporaryDirectory(prefix="guest-", dir=cached.parent) as directory_name:
        scratch = Path(directory_name)
        raw, compressed = scratch / "disk.raw", scratch / "disk.qcow2"
        write_disk(raw, boot=_boot_files(kernel), root=_root_files(), scratch=scratch)
        command = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", str(raw), str(compressed)]
        run(command, purpose="compress the guest's disk", limits=ProcessLimits(timeout_seconds=120))
        os.replace(compressed, cached)


def _boot_files(kernel: Kernel) -> dict[str, bytes]:
    return {"syslinux.cfg": _file("syslinux.cfg"), "vmlinuz": kernel.image.read_bytes(), "initrd": _initrd(kernel)}


def _initrd(kernel: Kernel) -> bytes:
    entries = [
        *map(directory, ("bin", "dev", "proc", "sys", "sysroot", "modules")),
        program("bin/busybox", find_file(*_BUSYBOX).read_bytes()),
    ]
    entries += [program("init", _file("initrd-init")), Entry(name="dev/console", mode=0o020600, device=(5, 1))]
    loaded: set[str] = set()
    for stage, wanted in (("boot", _BOOT_MODULES), ("late", _LATE_MODULES)):
        modules = [(name, content) for name, content in kernel.modules(wanted) if name not in loaded]
        loaded.update(name for name, _ in modules)
        entries += [Entry(name=f"modules/{name}.ko", mode=0o100644, content=content) for name, content in modules]
        names = "".join(f"{name}\n" for name, _ in modules)
        entries.append(Entry(name=f"modules/{stage}", mode=0o100644, content=names.encode()))
    return make_initrd(entries)


def _root_files() -> dict[str, RootFile]:
    files = {"bin/busybox": RootFile(content=find_file(*_BUSYBOX).read_bytes(), is_program=True)}
    files |= {path: RootFile(content=_file(name), is_program=True) for path, name in _PROGRAMS.items()}
    files |= {path: RootFile(content=_file(name)) for path, name in _CONFIGURATION.items()}
    return files


def _file(name: str) -> bytes:
    return (_HERE / "files" / name).read_bytes()
