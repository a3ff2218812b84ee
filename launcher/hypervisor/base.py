"""The seam between a machine's life and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from launcher.spec import MachineSpec


class EndKind(StrEnum):
    """Why a machine no longer runs."""

    POWERED_OFF = "PoweredOff"  # the guest switched itself off
    DESTROYED = "Destroyed"  # we took its power
    GUEST_CRASHED = "GuestCrashed"  # its kernel panicked
    EMULATOR_DIED = "EmulatorDied"  # QEMU ended without being told to
    LOST = "HypervisorLost"  # the daemon that watches QEMU is gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a machine; ``detail`` is for people: the emulator's last words and the like."""

    kind: EndKind
    detail: str = ""


class MachineState(StrEnum):
    """What a machine does now."""

    ABSENT = "absent"
    RUNNING = "running"
    PAUSED = "paused"
    CRASHED = "crashed"


class Hypervisor(Protocol):
    """Runs one machine."""

    def start(self, spec: MachineSpec, *, on_end: Callable[[Ending], None]) -> None:
        """Start the machine; ``on_end`` is called once, from any thread, when it has ended.

        Raises:
            ToolError: It could not be started, with the hypervisor's reason.
        """
        ...

    def state(self) -> MachineState:
        """Return what the machine does now."""
        ...

    def press_power_button(self) -> None:
        """Ask the guest to switch itself off (ACPI); returns at once, whatever the guest does."""
        ...

    def destroy(self) -> None:
        """Take the machine's power; returns at once, the end is told to ``on_end``."""
        ...
