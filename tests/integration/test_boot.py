"""The real command runs real machines: its disks, its console, its ends, and what it leaves behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagekit.base.process import ProcessLimits, run
from launcher.directory import BASE, remove_leftovers
from tests.guest import build_guest
from tests.support.boot import BootedMachine, booted
from tests.support.commands import command_environment, command_line
from tests.support.prerequisites import missing, require_program
from tests.support.services import free_port

pytestmark = [pytest.mark.boot, pytest.mark.xdist_group("boot")]

LOGIN_SECONDS = 120.0
LIMITS = ProcessLimits(timeout_seconds=120)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest's disk, a qcow2 file."""
    require_program("libvirtd")
    require_program("qemu-system-x86_64")
    return build_guest(tmp_path_factory.mktemp("guest") / "guest.qcow2")


@pytest.fixture
def volume(guest: Path, tmp_path: Path) -> Path:
    """A directory volume with the guest's disk."""
    directory = tmp_path / "volume"
    directory.mkdir()
    command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(guest), str(directory / "disk.img")]
    run(command, purpose="fill a volume", limits=LIMITS)
    return directory


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    """A disk that nothing boots from: its machine runs, and reacts to no power button."""
    require_program("libvirtd")
    disk = tmp_path / "blank.img"
    disk.write_bytes(bytes(1 << 20))
    return disk


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No machine leaves a directory, or a process in it; those of machines that run elsewhere are locked."""
    yield
    abandoned = [path for path in BASE.glob("virt-launcher-*") if is_abandoned(path)]
    assert not abandoned, [processes_of(path) for path in abandoned]


def is_abandoned(directory: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, BlockingIOError), (directory / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def processes_of(directory: Path) -> list[int]:
    """Return the processes whose command line speaks of ``directory``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(directory) in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def until(is_so: Callable[[], bool], *, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


class Parts:
    """The directory and the processes of a machine that has started."""

    def __init__(self, machine: BootedMachine, *, is_started: bool = True) -> None:
        self._is_started = is_started
        until(lambda: self._find(machine) or machine.process.poll() is not None)
        assert machine.process.poll() is None, machine.messages

    def _find(self, machine: BootedMachine) -> bool:
        for directory in BASE.glob("virt-launcher-*"):
            pids = processes_of(directory)
            if machine.process.pid in map(parent_of, pids) and (qemu := [pid for pid in pids if "qemu" in program_of(pid)]):
                self.directory = directory
                self.qemu = qemu[0]
                self.libvirtd = next(pid for pid in pids if "libvirtd" in program_of(pid))
                if not self._is_started:
                    return True
                with contextlib.suppress(OSError):
                    return b"state='running'" in (directory / "libvirt/run/libvirt/qemu/run/machine.xml").read_bytes()
        return False


def parent_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def program_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text()
    return ""


def is_gone(pid: int) -> bool:
    """Tell whether the process ended; one that nobody has reaped yet did."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.mark.slow
def test_volume_boots_serves_and_keeps_what_was_written(volume: Path) -> None:
    port = free_port()
    with booted(str(volume), "--forward", f"{port}:80") as machine:
        machine.wait_for(b"boot number 1", LOGIN_SECONDS)
        machine.wait_for(b"address 10.0.2.15", LOGIN_SECONDS)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            assert b"hello from the guest\nboots: 1\n" in answer.read(1000)
        with booted(str(volume)) as second:
            assert second.wait() == 1
            assert f"the disk {volume}/disk.img is in use" in second.messages
        assert machine.shutdown() == 0
    assert b"Power down" in machine.console
    with booted(str(volume), "--network", "none", "--bus", "scsi") as machine:
        machine.wait_for(b"boot number 2", LOGIN_SECONDS)
        machine.wait_for(b"login:", LOGIN_SECONDS)
        machine.process.terminate()
        assert machine.wait() == 0


@pytest.mark.root
def test_block_device_boots(volume: Path) -> None:
    command = ["losetup", "--find", "--show", str(volume / "disk.img")]
    device = run(command, purpose="make a block device", limits=LIMITS).stdout.decode().strip()
    try:
        with booted(device) as machine:
            machine.wait_for(b"login:", LOGIN_SECONDS)
            assert machine.shutdown() == 0
    finally:
        run(["losetup", "--detach", device], purpose="remove the block device", limits=LIMITS)


def test_efi_starts(blank: Path) -> None:
    if not list(Path("/usr/share/qemu/firmware").glob("*x86_64*.json")):
        missing("EFI firmware (ovmf)")
    with booted(str(blank), "--firmware", "efi", "--grace", "0") as machine:
        machine.wait_for(b"BdsDxe", LOGIN_SECONDS)
        assert machine.shutdown() == 1


@pytest.mark.slow
def test_image_boots_on_an_overlay(guest: Path, tmp_path: Path) -> None:
    layout, kept = tmp_path / "layout", tmp_path / "kept"
    command = command_line("registrydisk", "build", str(guest), "-t", f"oci:{layout}:guest", "--progress=none")
    run(command, purpose="build an image", limits=LIMITS, environment=command_environment())
    keeping = ("--persist", str(kept))
    for arguments, boots in (((), 1), (keeping, 1), (keeping, 2)):
        with booted(f"oci:{layout}:guest", *arguments) as machine:
            machine.wait_for(b"boot number %d" % boots, LOGIN_SECONDS)
            machine.wait_for(b"login:", LOGIN_SECONDS)
            machine.send(b"root\n")
            machine.wait_for(b"# ", 30)
            machine.send(b"poweroff\n")
            assert machine.wait() == 0


@pytest.mark.slow
def test_panic_is_told_from_a_power_off(guest: Path, tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with booted(str(guest)) as machine:
        machine.wait_for(b"login:", LOGIN_SECONDS)
        machine.send(b"root\n")
        machine.wait_for(b"# ", 30)
        machine.send(b"echo c > /proc/sysrq-trigger\n")
        assert machine.wait() == 1
        assert "the guest's kernel panicked" in machine.messages
    assert b"Kernel panic" in machine.console
    with booted(str(guest), "--console", str(log)) as machine:
        until(lambda: log.exists() and b"login:" in log.read_bytes(), seconds=LOGIN_SECONDS)
        assert machine.shutdown() == 0
    assert machine.console == b""


def test_deaf_guest_loses_its_power_after_the_grace(blank: Path) -> None:
    with booted(str(blank), "--grace", "0.5", memory="32M") as machine:
        Parts(machine)
        assert machine.shutdown() == 1
        assert "did not switch itself off in 0.5 s" in machine.messages


def test_second_request_takes_the_power(blank: Path) -> None:
    with booted(str(blank), "--console", "none", memory="32M") as machine:
        Parts(machine)
        machine.process.send_signal(signal.SIGINT)
        machine.process.send_signal(signal.SIGTERM)
        assert machine.wait() == 130


def test_request_before_the_start_ends_the_machine(blank: Path) -> None:
    with booted(str(blank), "--grace", "0", memory="32M") as machine:
        until(lambda: "emulated" in machine.messages)  # from here on signals are requests
        until(lambda: any(processes_of(path) for path in BASE.glob("virt-launcher-*")))
        assert machine.shutdown() == 1


def test_death_of_qemu_is_told_with_its_signal(blank: Path) -> None:
    with booted(str(blank), memory="32M") as machine:
        os.kill(Parts(machine).qemu, signal.SIGKILL)
        assert machine.wait() == 1
        assert "QEMU ended while the machine ran" in machine.messages
        assert "SIGKILL" in machine.messages


def test_death_of_libvirtd_ends_the_machine(blank: Path) -> None:
    with booted(str(blank), memory="32M") as machine:
        parts = Parts(machine)
        os.kill(parts.libvirtd, signal.SIGKILL)
        assert machine.wait() == 1
        assert "libvirtd ended or hung while the machine ran" in machine.messages
        assert is_gone(parts.qemu)


@pytest.mark.slow
def test_hanging_qemu_can_be_ended(blank: Path) -> None:
    with booted(str(blank), "--grace", "1", memory="32M") as machine:
        parts = Parts(machine)
        os.kill(parts.qemu, signal.SIGSTOP)
        assert machine.shutdown() == 1
        assert is_gone(parts.qemu)


def test_qemu_that_hangs_at_its_start_can_be_ended(blank: Path) -> None:
    with booted(str(blank), memory="32M") as machine:
        parts = Parts(machine, is_started=False)
        os.kill(parts.qemu, signal.SIGSTOP)
        machine.process.send_signal(signal.SIGINT)
        machine.process.send_signal(signal.SIGTERM)
        assert machine.wait() == 130
        assert is_gone(parts.qemu)


def test_killed_command_leaves_no_process_and_the_next_run_no_directory(blank: Path) -> None:
    with booted(str(blank), memory="32M") as machine:
        parts = Parts(machine)
        machine.process.kill()
        until(lambda: is_gone(parts.qemu) and is_gone(parts.libvirtd), seconds=5)
    assert parts.directory.is_dir()
    remove_leftovers()
    assert not parts.directory.exists()


def test_port_in_use_is_told(blank: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with booted(str(blank), "--forward", f"{taken.getsockname()[1]}:80", memory="32M") as machine:
            assert machine.wait() == 1
            assert "Could not set up host forwarding rule" in machine.messages
