"""The seam between a machine's life and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from launcher.spec import MachineSpec


class EndKind(StrEnum):
    """Why a machine no longer runs."""

    START_FAILED = "StartFailed"  # it never ran
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The machine runs."""


MachineEvent = Started | Ending


class Hypervisor(Protocol):
    """Runs one machine."""

    def start(self, spec: MachineSpec, *, on_event: Callable[[MachineEvent], None]) -> None:
        """Begin to start the machine, and return at once.

        ``on_event`` is called, from any thread, with Started when the machine runs and once with its Ending, which may
        be that it did not start.

        Raises:
            ImagekitError: A disk cannot be opened, or the hypervisor refuses the machine.
        """
        ...

    def press_power_button(self) -> None:
        """Ask the guest to switch itself off (ACPI); returns at once, whatever the guest does."""
        ...

    def destroy(self) -> None:
        """Take the machine's power; returns at once, the end is told to ``on_event``."""
        ...
