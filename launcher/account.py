"""As whom libvirtd and QEMU run: as the user who runs us, but never as root.

A libvirtd that runs as root is the system's own, with the system's directories and sockets. So root's runs as nobody,
with no capability at all; it gets the disks as open descriptors and needs no access to their paths.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path

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
