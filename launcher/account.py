"""As whom libvirtd and QEMU run: as the user who runs us, but never as root.

A libvirtd that runs as root is the system's own, with the system's directories and sockets. So root's runs as nobody,
with no capability at all; it gets the disks as open descriptors and needs no access to their paths. Block devices,
which libvirt takes by path only, get a node of their own that nobody may open.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from pathlib import Path

from imagekit.base.errors import AccessError

_KVM = Path("/dev/kvm")


def account_options() -> list[str]:
    """Return what goes before a program that must not run as root; nothing for an ordinary user.

    Changing the user clears the signal that ends the program with us (prctl(2)), so it is set once more.
    """
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    groups = ["--clear-groups"]
    with contextlib.suppress(OSError):
        groups = ["--groups", str(_KVM.stat().st_gid)]
    user = ["--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), *groups]
    return ["setpriv", *user, "--inh-caps", "-all", "--ambient-caps", "-all", "--bounding-set", "-all", "--pdeathsig", "KILL", "--"]


def give_away(path: Path) -> None:
    """Make ``path`` and everything below it belong to whoever ``account_options`` chooses."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for each in (path, *path.rglob("*")):
            os.chown(each, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)


def reachable_device(device: Path, *, node: Path) -> Path:
    """Return a path by which whoever ``account_options`` chooses may open the block device.

    Args:
        node: Where a node for the device is made if it needs one, in a directory that the account may pass through.

    Raises:
        AccessError: No node can be made here.
    """
    if os.geteuid() != 0:
        return device
    try:
        os.mknod(node, stat.S_IFBLK | 0o600, device.stat().st_rdev)
    except OSError as error:
        hint = "run as a user who may open the device, or in a place where device nodes may be made"
        raise AccessError(f"cannot hand the block device {device} to the machine", reason="Forbidden", hint=hint) from error
    give_away(node)
    return node
