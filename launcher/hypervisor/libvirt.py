"""The hypervisor that runs machines through libvirt (libvirt: html/libvirt-libvirt-domain.html).

libvirt's event loop belongs to the process: it is registered once, before the first connection, and runs in a thread of
its own for good. Its callbacks only put down what they were told.
"""

from __future__ import annotations

import contextlib
import functools
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt

from imagekit.base.errors import ToolError
from launcher.domain import domain_xml
from launcher.hypervisor.base import Ending, EndKind, MachineEvent, Started
from launcher.hypervisor.daemon import LibvirtDaemon, emulator, libvirt_daemon
from launcher.hypervisor.descriptors import open_disks
from launcher.spec import MachineSpec
from launcher.subreaper import Subreaper, adoption, reaping

_LOG_LINES = 5
_SAID_BY_QEMU = re.compile(r"(?:\S+ )?qemu-system-\S+: ")  # the command line is in the log as well, and may hold anything


@contextlib.contextmanager
def libvirt_hypervisor(root: Path, *, cache: Path) -> Iterator[LibvirtHypervisor]:
    """Run a hypervisor whose daemon, sockets and state are below ``root``; nothing of it is left after the context.

    Args:
        root: An empty, private directory with a short path.
        cache: Where what libvirt learns of QEMU is kept between runs.

    Raises:
        ToolError: libvirtd or QEMU is missing, or does not start.
    """
    _start_event_loop()
    with adoption(), libvirt_daemon(root, cache=cache) as daemon, reaping(daemon.process.pid) as reaper:
        hypervisor = LibvirtHypervisor(daemon=daemon, reaper=reaper, emulator=emulator(root, cache=cache))
        try:
            yield hypervisor
        finally:
            hypervisor.close()


class LibvirtHypervisor:
    """Runs one machine through a libvirtd of our own."""

    def __init__(self, *, daemon: LibvirtDaemon, reaper: Subreaper, emulator: Path) -> None:
        self._daemon = daemon
        self._reaper = reaper
        self._emulator = emulator
        self._connection: Any = None
        self._domain: Any = None
        self._end = _End()

    def start(self, spec: MachineSpec, *, on_event: Callable[[MachineEvent], None]) -> None:
        self._end = _End(on_event, explain=functools.partial(self._last_words, spec.name))
        try:
            self._connection = libvirt.open(self._daemon.uri)
            self._connection.registerCloseCallback(self._end.on_close, None)
            self._connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._end.on_lifecycle, None)
            self._domain = self._connection.defineXML(domain_xml(spec, emulator=str(self._emulator)))
            _hand_over(self._domain, spec)
        except libvirt.libvirtError as error:
            raise ToolError(f"cannot start the machine {spec.name}: {error}", reason=EndKind.START_FAILED.value) from error
        _in_thread(functools.partial(self._create, spec.name))

    def _create(self, name: str) -> None:
        """Start the defined machine; libvirt waits for QEMU without limit."""
        try:
            self._domain.create()
        except libvirt.libvirtError as error:
            self._end.start_failed(error)
        else:
            self._end.started(self._daemon.machine_pid(name))

    def press_power_button(self) -> None:
        # libvirt waits for QEMU's answer without limit, and a QEMU that hangs gives none: nobody may wait for this call.
        _in_thread(_suppressing(functools.partial(self._domain.shutdownFlags, libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)))

    def destroy(self) -> None:
        _in_thread(_suppressing(self._domain.destroy))

    def close(self) -> None:
        """Leave libvirt; a machine that still runs is ended with everything else that was adopted."""
        self._end.forget()
        self._domain = None
        if self._connection is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._connection.unregisterCloseCallback()
            with contextlib.suppress(libvirt.libvirtError):
                self._connection.close()
        self._connection = None

    def _last_words(self, name: str, pid: int | None) -> str:
        """Return how QEMU ended and what it said last."""
        exit_code = self._reaper.exit_code(pid) if pid is not None else None
        words = []
        if exit_code is not None and exit_code < 0:
            words.append(f"QEMU was ended by {signal.Signals(-exit_code).name}")
        elif exit_code is not None:
            words.append(f"QEMU's exit code was {exit_code}")
        lines = self._daemon.machine_log(name).splitlines()
        words += [line for line in lines if _SAID_BY_QEMU.match(line)][-_LOG_LINES:]
        return "\n".join(words)


class _End:
    """Hears libvirt's events, and tells the start and the end once each, in this order."""

    def __init__(
        self, on_event: Callable[[MachineEvent], None] = lambda _: None, *, explain: Callable[[int | None], str] = lambda _: ""
    ) -> None:
        self._on_event = on_event
        self._explain = explain
        self._lock = threading.Lock()
        self._pid: int | None = None
        self._has_started = False
        self._early_detail: int | None = None
        self._has_panicked = False
        self._was_told_by_host = False

    def on_lifecycle(self, *arguments: Any) -> None:
        """Take libvirt's callback: connection, domain, event, detail, and what was registered with it."""
        _, _, event, detail, _ = arguments
        if event == libvirt.VIR_DOMAIN_EVENT_CRASHED:
            self._has_panicked = True
        elif event == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN:
            self._was_told_by_host = detail == libvirt.VIR_DOMAIN_EVENT_SHUTDOWN_HOST
        elif event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            with self._lock:
                if not self._has_started:  # the call that starts it fails, and knows why; or is about to return
                    self._early_detail = detail
                    return
            self._tell_stopped(detail)

    def on_close(self, _connection: Any, _reason: int, _opaque: Any) -> None:
        self._tell(Ending(kind=EndKind.LOST))

    def started(self, pid: int | None) -> None:
        """Tell that the machine runs, and that it has ended if it did so meanwhile."""
        self._pid = pid
        self._on_event(Started())
        with self._lock:
            self._has_started = True
        if self._early_detail is not None:
            self._tell_stopped(self._early_detail)

    def start_failed(self, error: Exception) -> None:
        """Tell that the machine does not run, unless the connection's end was told."""
        self._tell(Ending(kind=EndKind.START_FAILED, detail=str(error)))

    def forget(self) -> None:
        """Tell no more."""
        self._on_event = lambda _: None

    def _tell_stopped(self, detail: int) -> None:
        kind = self._kind(detail)
        self._tell(Ending(kind=kind, detail=self._explain(self._pid) if kind is EndKind.EMULATOR_DIED else ""))

    def _kind(self, detail: int) -> EndKind:
        if self._has_panicked or detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_CRASHED:
            return EndKind.GUEST_CRASHED
        if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED:
            return EndKind.DESTROYED
        if detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN and not self._was_told_by_host:
            return EndKind.POWERED_OFF
        return EndKind.EMULATOR_DIED

    def _tell(self, ending: Ending) -> None:
        with self._lock:
            on_event, self._on_event = self._on_event, lambda _: None
        on_event(ending)


def _hand_over(domain: Any, spec: MachineSpec) -> None:
    """Give libvirt the disks as open descriptors: nobody looks at the paths again, and QEMU needs no access to them."""
    with contextlib.ExitStack() as opened:
        for group, descriptor in open_disks(spec.disks, opened):
            domain.FDAssociate(group, [descriptor], 0)


def _suppressing(call: Callable[[], object]) -> Callable[[], None]:
    def guarded() -> None:
        with contextlib.suppress(libvirt.libvirtError):  # the machine ended by itself in the meantime, or has not started
            call()

    return guarded


def _in_thread(call: Callable[[], None]) -> None:
    threading.Thread(target=call, name="hypervisor-call", daemon=True).start()


@functools.cache
def _start_event_loop() -> None:
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # errors are raised; libvirt would print them as well
    libvirt.virEventRegisterDefaultImpl()

    def loop() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=loop, name="libvirt-events", daemon=True).start()
