"""``virt-launcher run``: from a request to the end of the machine, with everything that lives in between."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from imagekit.base.clock import SYSTEM_CLOCK
from imagekit.base.errors import UsageError
from imagekit.base.files import translate_os_error
from imagekit.base.progress import Progress
from imagekit.base.units import MIB
from imagekit.image import DiskFormat
from launcher.accelerator import AcceleratorChoice, choose_accelerator
from launcher.account import reachable_device
from launcher.console import console
from launcher.directory import run_directory
from launcher.disks import FoundDisk, fetch_image, find_volume, is_image, machine_disk
from launcher.events import EventQueue, stop_signals
from launcher.hypervisor.libvirt import libvirt_hypervisor
from launcher.lifecycle import Event, Life, StopRequested, drive, failure
from launcher.locks import disk_lock
from launcher.spec import Accelerator, Bus, Disk, Firmware, MachineSpec, Network
from registrydisk.access import RegistryAccess
from registrydisk.manifest import Platform
from registrydisk.reference import Location

_NAME = "machine"
_NO_NETWORK = Network()


class ConsoleKind(StrEnum):
    """Where the serial console goes; anything else is the name of a file."""

    TTY = "tty"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the user asks for.

    Attributes:
        source: A volume's path, or an image with its transport.
        console: A ConsoleKind, or the path of a file that the output is appended to.
        disk_format: What the volume is read as; inspected or known when None.
        persist: A directory that keeps the overlay of an image; it is thrown away when None.
        seed: An ISO image for a second drive, as cloud-init's NoCloud source.
        grace_seconds: How long the guest may take to switch itself off.
        cache: Where fetched disks and what was learnt of this machine are kept.
    """

    source: str
    memory_bytes: int = 512 * MIB
    cpus: int = 1
    network: Network = _NO_NETWORK
    firmware: Firmware = Firmware.BIOS
    bus: Bus = Bus.VIRTIO
    accelerator: AcceleratorChoice = AcceleratorChoice.AUTO
    console: str = ConsoleKind.TTY
    disk_format: DiskFormat | None = None
    platform: Platform | None = None
    persist: Path | None = None
    seed: Path | None = None
    grace_seconds: float = 30.0
    cache: Path
    access: RegistryAccess


def run_machine(request: RunRequest, *, progress: Progress) -> Life:
    """Run the machine to its end, and return how far its life was when the end came.

    SIGINT, SIGTERM, SIGHUP and the console's escape key ask the guest to switch itself off; asked again, the machine
    loses its power. Must be called in the main thread.

    Raises:
        ImagekitError: The disk, the hypervisor or the guest failed; see ``launcher.lifecycle.failure``.
    """
    found = _find_disk(request, progress)
    accelerator = _choose_accelerator(request, progress)
    events: EventQueue[Event] = EventQueue()
    with contextlib.ExitStack() as stack:
        stack.enter_context(stop_signals(events, make=StopRequested))
        directory = stack.enter_context(run_directory())
        with _as_usage_errors():
            disks = _disks(request, found, directory=directory, stack=stack)
            spec = _specification(request, disks=disks, accelerator=accelerator, directory=directory)
        state = directory / "libvirt"
        state.mkdir(mode=0o700)
        hypervisor = stack.enter_context(libvirt_hypervisor(state, cache=request.cache))
        _open_console(request, spec, stack, on_escape=lambda: events.put(StopRequested()))
        hypervisor.start(spec, on_event=events.put)
        life, ending = drive(hypervisor, events, grace_seconds=request.grace_seconds, clock=SYSTEM_CLOCK)
    error = failure(life, ending)
    if error is not None:
        raise error
    return life


@contextlib.contextmanager
def _as_usage_errors() -> Iterator[None]:
    """Tell the user what a specification refuses."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from None


def _find_disk(request: RunRequest, progress: Progress) -> FoundDisk:
    if not is_image(request.source):
        return find_volume(Path(request.source), disk_format=request.disk_format)
    location = Location.parse(request.source)
    return fetch_image(location, cache=request.cache, access=request.access, platform=request.platform, progress=progress)


def _choose_accelerator(request: RunRequest, progress: Progress) -> Accelerator:
    accelerator = choose_accelerator(request.accelerator, cache=request.cache)
    if accelerator is Accelerator.TCG and request.accelerator is AcceleratorChoice.AUTO:
        progress.note("KVM does not run a guest here: the machine is emulated, which is several times slower")
    return accelerator


def _disks(request: RunRequest, found: FoundDisk, *, directory: Path, stack: contextlib.ExitStack) -> tuple[Disk, ...]:
    """Return the machine's disks, locked until ``stack`` is left."""
    stack.enter_context(disk_lock(found.path, is_shared=found.is_template or found.format is DiskFormat.ISO))
    place = (directory / "disks") if request.persist is None else request.persist.resolve()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    overlay = place / f"overlay-{found.path.name[:16]}.qcow2"
    if found.is_block_device:
        found = replace(found, path=reachable_device(found.path, node=directory / "device"))
    disk = machine_disk(found, bus=request.bus, overlay=overlay, is_ephemeral=request.persist is None)
    if disk.base is not None:
        stack.enter_context(disk_lock(overlay))
    if request.seed is None:
        return (disk,)
    seed = Disk(path=str(request.seed.resolve()), format=DiskFormat.ISO, bus=Bus.SATA, is_cdrom=True)
    return disk, seed


def _specification(request: RunRequest, *, disks: tuple[Disk, ...], accelerator: Accelerator, directory: Path) -> MachineSpec:
    return MachineSpec(
        name=_NAME,
        disks=disks,
        memory_bytes=request.memory_bytes,
        cpus=request.cpus,
        accelerator=accelerator,
        firmware=request.firmware,
        network=request.network,
        console_socket="" if request.console == ConsoleKind.NONE else str(directory / "console"),
    )


def _open_console(request: RunRequest, spec: MachineSpec, stack: contextlib.ExitStack, *, on_escape: Callable[[], None]) -> None:
    if not spec.console_socket:
        return
    if request.console == ConsoleKind.TTY:
        input_fd, output_fd = _terminal_input(), _terminal_output()
    else:
        input_fd, output_fd = None, _open_console_file(request.console)
        stack.callback(os.close, output_fd)
    stack.enter_context(console(Path(spec.console_socket), input_fd=input_fd, output_fd=output_fd, on_escape=on_escape))


def _open_console_file(path: str) -> int:
    """Open ``path`` to append to it; a pipe must have its reader, for no signal ends the wait for one."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise UsageError(f"nobody reads the pipe {path}", hint="start its reader first") from None
        raise translate_os_error(error, doing=f"open the console {path!r}") from error
    os.set_blocking(descriptor, True)
    return descriptor


def _terminal_output() -> int:
    if sys.stdout is None:  # closed by whoever started us
        raise UsageError("the console has no place to go: standard output is closed", hint="use --console none, or a file")
    return sys.stdout.fileno()


def _terminal_input() -> int | None:
    """Return standard input; not when it is a terminal whose user would not see the guest."""
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # closed, or replaced
        return None
    return None if os.isatty(descriptor) and not sys.stdout.isatty() else descriptor
