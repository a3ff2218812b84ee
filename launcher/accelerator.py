"""Whether KVM may be used: only where it has run a guest.

That /dev/kvm is there proves nothing: it opens, and makes a virtual machine, on hosts where no operating system comes
up. So a guest of one sector is run, which does what an operating system does first (its source is kvm_probe.S). The
answer holds until this machine is booted again, and is kept that long.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from enum import StrEnum
from pathlib import Path

from imagekit.base.errors import DeadlineError, ImagekitError, ToolError
from imagekit.base.files import write_file
from imagekit.base.process import ProcessLimits, run
from launcher.account import account_options, give_away
from launcher.directory import run_directory
from launcher.spec import Accelerator

_DEVICE = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PROVEN_EXIT_CODE = 85  # isa-debug-exit ends QEMU with 2 * 42 + 1
_LIMITS = ProcessLimits(timeout_seconds=5)
_YES, _NO = b"yes\n", b"no\n"
_BOOT_SECTOR = bytes.fromhex(
    "fa31c08ed88ec08ed0bc007cfc660f0116607d0f20c06683c8010f22c066ea257c0000080066b810008ed88ec08ed0bc007c000031c0bf00100000b9"
    "00100000f3abb80000080066b8bd7ca300110000c70504110000008e00000f011d667d000031dbcd2083fb010f85c0000000c7050020000003300000"
    "c7050030000003400000c70500400000830000000f20e083c8200f22e0b8002000000f22d8b9800000c00f320d000100000f300f20c00d000000800f"
    "22c0eac17c00001800606143cf48c7c700120000b80000180066b8327d8907c74704008e0000c74708000000000f011c25667d0000b011e620e6a0b0"
    "20e621b028e6a1b004e621b002e6a1b001e621e6a1b0fee621b0ffe6a1b034e643b0a9e640b004e64031dbfbf483fb0372f9fa31c00fa266ba0105b0"
    "2aeefaf4ebfcffc350b020e6205848cf0f1f40000000000000000000ffff0000009acf00ffff00000092cf00ffff0000009aaf001f00407d0000ff0f"
    "0010"
)


class AcceleratorChoice(StrEnum):
    """What the user asks for; AUTO is KVM where it is proven, else TCG."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


def choose_accelerator(choice: AcceleratorChoice, *, cache: Path) -> Accelerator:
    """Return how the machine will run.

    Raises:
        ToolError: KVM is asked for, and it does not run a guest here.
    """
    if choice is AcceleratorChoice.TCG:
        return Accelerator.TCG
    if is_kvm_proven(cache):
        return Accelerator.KVM
    if choice is AcceleratorChoice.KVM:
        hint = "let --accelerator=auto choose; look whether your group may open /dev/kvm"
        raise ToolError("KVM does not run a guest on this machine", reason="KVMUnusable", hint=hint)
    return Accelerator.TCG


def is_kvm_proven(cache: Path) -> bool:
    """Return whether KVM runs a guest here, from the cache if it was tried since this machine was booted."""
    if not _DEVICE.exists():
        return False
    answer = cache / "kvm" / _question()
    with contextlib.suppress(OSError):
        if (known := answer.read_bytes()) in (_YES, _NO):
            return known == _YES
    does_run = runs_probe(Accelerator.KVM)
    with contextlib.suppress(OSError, ImagekitError):
        answer.parent.mkdir(parents=True, exist_ok=True)
        write_file(answer, _YES if does_run else _NO)
    return does_run


def runs_probe(accelerator: Accelerator) -> bool:
    """Run the guest of one sector, as the account that machines run as, and return whether it came to its end."""
    with run_directory() as directory:
        disk = directory / "probe.img"
        disk.write_bytes(_BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa")
        give_away(disk)
        try:
            ended = run(
                [*account_options(), *probe_arguments(disk, accelerator)],
                purpose="try the accelerator",
                limits=_LIMITS,
                accepted_exit_codes=frozenset(range(256)),
            )
        except (ToolError, DeadlineError):
            return False
    return ended.exit_code == _PROVEN_EXIT_CODE


def probe_arguments(disk: Path, accelerator: Accelerator) -> list[str]:
    """Return the argument list that runs the boot sector in ``disk``."""
    return [
        "qemu-system-x86_64",
        *("-accel", accelerator.value),
        *("-machine", "pc", "-m", "16", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-device", "isa-debug-exit,iobase=0x501,iosize=1"),
        *("-drive", f"file={disk},format=raw,if=floppy"),
    ]


def _question() -> str:
    """Return a name for what was tried: this boot, this probe, this device and this user."""
    boot = _BOOT_ID.read_bytes()
    status = _DEVICE.stat()
    subject = f"{status.st_rdev} {status.st_mode} {status.st_gid} {os.geteuid()}".encode()
    return hashlib.sha256(b"\0".join([boot, _BOOT_SECTOR, subject])).hexdigest()[:32]
