"""A libvirtd of our own: private configuration, sockets and state, for root and for an ordinary user alike.

It manages "session" machines only, starts nothing by itself, and ends with us: the kernel kills it when we die. What
libvirt learns of a QEMU costs it most of a second, so that is kept in the user's cache for the next run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imagekit.base.clock import SYSTEM_CLOCK
from imagekit.base.errors import DeadlineError, ImagekitError, ToolError
from imagekit.base.files import opened_regular, write_file
from imagekit.base.process import Daemon, daemon, find_program
from imagekit.base.units import MIB
from launcher.account import account_options, give_away

_START_SECONDS = 30.0
_LOG_BYTES = 64 * 1024
_LARGEST_CAPABILITIES_BYTES = 4 * MIB
_QEMU_CONFIGURATION = """\
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
"""
_DAEMON_CONFIGURATION = """\
auth_unix_rw = "none"
log_outputs = "3:stderr"
"""
_EMULATOR = "qemu-system-x86_64"
_SYSTEM_CACHE = Path("/var/cache/imagekit")
_APPARMOR_SWITCH = Path("/sys/module/apparmor/parameters/enabled")


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtDaemon:
    """A running libvirtd; ``uri`` is what a client connects to."""

    root: Path
    process: Daemon

    @property
    def uri(self) -> str:
        """The connection's URI."""
        return f"qemu:///session?socket={_socket(self.root)}"

    def machine_log(self, name: str) -> str:
        """Return the end of QEMU's messages of the machine ``name``; nothing before there are any."""
        return _end_of(self.root / "cache/libvirt/qemu/log" / f"{name}.log")

    def machine_pid(self, name: str) -> int | None:
        """Return the process id of the machine's QEMU, or None before it has one."""
        with contextlib.suppress(ValueError):
            return int(_end_of(self.root / "run/libvirt/qemu/run" / f"{name}.pid"))
        return None


@contextlib.contextmanager
def libvirt_daemon(root: Path, *, cache: Path) -> Iterator[LibvirtDaemon]:
    """Run a libvirtd below ``root``, which must be private, while the context lasts.

    Raises:
        ToolError: It is not installed, or does not start.
    """
    environment = _prepare(root)
    _copy_capabilities(_capabilities(cache), _capabilities(root / "cache"), owner=os.geteuid())
    give_away(root)
    command = [*_confinement(), *account_options(), "libvirtd", "--config", str(root / "libvirtd.conf")]
    with daemon(command, purpose="run libvirtd", log_path=root / "libvirtd.log", environment=environment) as process:
        _wait_for_socket(_socket(root), process)
        yield LibvirtDaemon(root=root, process=process)
        with contextlib.suppress(OSError):
            _copy_capabilities(_capabilities(root / "cache"), _capabilities(cache), owner=root.stat().st_uid)


def emulator(root: Path, *, cache: Path) -> Path:
    """Return the program that libvirt starts as QEMU: QEMU itself, but ended by the kernel when its parent is.

    Its path names the QEMU behind it, because libvirt remembers what a QEMU can do by path. For root it is where nobody
    may start it, and below ``root`` if it cannot be there.

    Raises:
        ToolError: QEMU is not installed.
    """
    program = find_program(_EMULATOR)
    if program is None:
        hint = "run `imagekit doctor` to see which Debian package has it"
        raise ToolError(f"cannot start a machine: the program {_EMULATOR!r} is not installed", reason="ToolMissing", hint=hint)
    status = program.resolve().stat()
    script = f'#!/bin/sh\nexec setpriv --pdeathsig KILL -- "{program}" "$@"\n'
    identity = f"{program} {status.st_size} {status.st_mtime_ns} {script}"
    name = Path("emulators") / hashlib.sha256(identity.encode()).hexdigest()[:16] / _EMULATOR
    try:
        return _write_program((_SYSTEM_CACHE if os.geteuid() == 0 else cache) / name, script)
    except OSError:
        return _write_program(root / name, script)


def _end_of(path: Path) -> str:
    """Return the last of a file that libvirt wrote; nothing of a pipe, where root would wait, or of a link."""
    with contextlib.suppress(ImagekitError, OSError), opened_regular(path) as descriptor:
        return os.pread(descriptor, _LOG_BYTES, max(0, os.fstat(descriptor).st_size - _LOG_BYTES)).decode("utf-8", "replace")
    return ""


def _write_program(path: Path, script: str) -> Path:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, script.encode(), mode=0o755)
        for made in (path.parent.parent, path.parent, path):
            made.chmod(0o755)  # whatever the umask is: nobody starts it
    return path


def _prepare(root: Path) -> dict[str, str]:
    """Write the configuration, and return the environment that keeps libvirt inside ``root``."""
    places = {
        "XDG_RUNTIME_DIR": "run",
        "XDG_CONFIG_HOME": "config",
        "XDG_CACHE_HOME": "cache",
        "XDG_DATA_HOME": "data",
        "HOME": "home",
    }
    (root / "config/libvirt").mkdir(parents=True)
    (root / "config/libvirt/qemu.conf").write_text(_QEMU_CONFIGURATION)
    (root / "libvirtd.conf").write_text(_DAEMON_CONFIGURATION)
    for place in places.values():
        (root / place).mkdir(exist_ok=True)
    return {name: str(root / place) for name, place in places.items()}


def _confinement() -> list[str]:
    """Return what goes before libvirtd where AppArmor's profile, made for the system's own daemon, would hold ours.

    The profile lets libvirtd start programs from the system's directories only, and our emulator is not there.
    """
    with contextlib.suppress(OSError):
        if _APPARMOR_SWITCH.read_text().strip() == "Y" and find_program("aa-exec") is not None:
            return ["aa-exec", "-p", "unconfined", "--"]
    return []


def _socket(root: Path) -> Path:
    return root / "run/libvirt/libvirt-sock"


def _wait_for_socket(path: Path, process: Daemon) -> None:
    deadline = SYSTEM_CLOCK.monotonic() + _START_SECONDS
    while not _listens(path):
        if not process.is_running():
            raise ToolError(f"cannot run libvirtd: it ended at its start\n{process.log_tail()}", reason="ToolFailed")
        if SYSTEM_CLOCK.monotonic() > deadline:
            raise DeadlineError(f"cannot run libvirtd: it did not listen after {_START_SECONDS:.0f} s\n{process.log_tail()}")
        SYSTEM_CLOCK.sleep(0.01)


def _listens(path: Path) -> bool:
    """Tell whether a connection succeeds: the file alone is there a moment before."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def _capabilities(cache: Path) -> Path:
    return cache / "libvirt/qemu/cache/capabilities"


def _copy_capabilities(source: Path, target: Path, *, owner: int) -> None:
    """Copy what libvirt knows of QEMUs; each file appears whole, because two runs may do this at once.

    Where libvirtd is nobody, root reads what nobody wrote: only nobody's own files, wherever a link leads.
    """
    if not source.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.xml"):
        with contextlib.suppress(ImagekitError), opened_regular(path) as descriptor:
            status = os.fstat(descriptor)
            if status.st_uid != owner or status.st_size > _LARGEST_CAPABILITIES_BYTES:
                continue
            if not (target / path.name).exists() or (target / path.name).stat().st_size != status.st_size:
                partial = target / f".{path.name}.{os.getpid()}"
                partial.write_bytes(os.pread(descriptor, status.st_size, 0))
                os.replace(partial, target / path.name)
