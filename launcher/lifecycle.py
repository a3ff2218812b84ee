"""A machine's life: starting, running, asked to stop, and ended.

What to do next is decided by pure functions on a small state; ``drive`` waits, asks them and acts. A guest that is
asked to stop gets its power button pressed, and pressed again while it does not react (a guest that still boots does
not see the first one); when its grace is over, or when asked again, its power is taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from imagekit.base.clock import Clock
from imagekit.base.errors import ImagekitError, ToolError
from imagekit.base.units import format_duration
from launcher.events import EventQueue
from launcher.hypervisor.base import Ending, EndKind, Hypervisor, MachineEvent, Started

START_SECONDS = 120.0
PRESS_SECONDS = 5.0
DESTROY_SECONDS = 15.0  # libvirt itself waits ten before it kills


class StopRequested:
    """Somebody wants the machine to end: Ctrl-C, SIGTERM or the console's escape key."""


Event = StopRequested | MachineEvent


class Phase(StrEnum):
    """How far a machine's life is."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    DESTROYING = "destroying"


class Action(StrEnum):
    """What the hypervisor is told."""

    PRESS_POWER_BUTTON = "press the power button"
    DESTROY = "take the power"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """The state of a machine's life.

    Attributes:
        grace_seconds: How long the guest may take to switch itself off.
        has_started: Whether the machine ever ran.
        is_forced: Whether the power was taken because it was asked for twice.
        press_at: When the power button is pressed again.
        deadline: When patience with the present phase ends.
    """

    grace_seconds: float
    phase: Phase = Phase.STARTING
    has_started: bool = False
    is_forced: bool = False
    press_at: float = 0.0
    deadline: float = 0.0


def begin(*, grace_seconds: float, now: float) -> Life:
    """Return the life of a machine that begins to start."""
    return Life(grace_seconds=grace_seconds, deadline=now + START_SECONDS)


def after_start(life: Life) -> Life:
    """Return what it leads to that the machine runs; one that was asked to stop before has its button pressed in time."""
    return replace(life, has_started=True, phase=Phase.RUNNING if life.phase is Phase.STARTING else life.phase)


def after_request(life: Life, *, now: float) -> tuple[Life, Action | None]:
    """Return what a request to stop leads to: the button, then the power, then nothing more."""
    match life.phase:
        case Phase.STARTING | Phase.RUNNING:
            stopping = replace(life, phase=Phase.STOPPING, press_at=now + PRESS_SECONDS, deadline=now + life.grace_seconds)
            return stopping, Action.PRESS_POWER_BUTTON
        case Phase.STOPPING:
            return _destroying(replace(life, is_forced=True), now=now), Action.DESTROY
        case Phase.DESTROYING:
            return life, None


def after_wait(life: Life, *, now: float) -> tuple[Life, Action | None]:
    """Return what the time that passed leads to."""
    match life.phase:
        case Phase.RUNNING:
            return life, None
        case Phase.STARTING | Phase.STOPPING if now >= life.deadline:
            return _destroying(life, now=now), Action.DESTROY
        case Phase.STOPPING if now >= life.press_at:
            return replace(life, press_at=now + PRESS_SECONDS), Action.PRESS_POWER_BUTTON
        case Phase.DESTROYING if now >= life.deadline:
            return life, Action.GIVE_UP
        case _:
            return life, None


def wake_at(life: Life) -> float | None:
    """Return when ``after_wait`` must be asked next; None when only an event can change anything."""
    match life.phase:
        case Phase.RUNNING:
            return None
        case Phase.STOPPING:
            return min(life.press_at, life.deadline)
        case Phase.STARTING | Phase.DESTROYING:
            return life.deadline


def _destroying(life: Life, *, now: float) -> Life:
    return replace(life, phase=Phase.DESTROYING, deadline=now + DESTROY_SECONDS)


def failure(life: Life, ending: Ending) -> ImagekitError | None:
    """Return what is wrong with how a machine ended; None when it ended as it should, or as the user insisted."""
    if ending.kind is EndKind.POWERED_OFF or life.is_forced:
        return None
    if life.phase is Phase.DESTROYING and life.has_started:
        waited = format_duration(life.grace_seconds)
        hint = "give it longer with --grace, or look at its console"
        return ImagekitError(
            f"the guest did not switch itself off in {waited} and lost its power", reason="ShutdownIgnored", hint=hint
        )
    match ending.kind:
        case EndKind.START_FAILED:
            return ToolError(f"the machine did not start: {ending.detail}", reason=ending.kind.value)
        case EndKind.GUEST_CRASHED:
            return ImagekitError("the guest's kernel panicked", reason=ending.kind.value, hint="its last words are on its console")
        case EndKind.LOST:
            return ToolError("libvirtd ended or hung while the machine ran; the machine was ended", reason=ending.kind.value)
        case _:
            said = f"\n{ending.detail}" if ending.detail else ""
            return ToolError(f"QEMU ended while the machine ran{said}", reason=EndKind.EMULATOR_DIED.value)


def drive(hypervisor: Hypervisor, events: EventQueue[Event], *, grace_seconds: float, clock: Clock) -> tuple[Life, Ending]:
    """Follow a machine that begins to start to its end; ``events`` brings the requests to stop and the end itself."""
    life = begin(grace_seconds=grace_seconds, now=clock.monotonic())
    while True:
        action = None
        match _next_event(life, events, clock):
            case Ending() as ending:
                return life, ending
            case Started():
                life = after_start(life)
            case StopRequested():
                life, action = after_request(life, now=clock.monotonic())
            case None:
                life, action = after_wait(life, now=clock.monotonic())
        match action:
            case Action.PRESS_POWER_BUTTON:
                hypervisor.press_power_button()
            case Action.DESTROY:
                hypervisor.destroy()
            case Action.GIVE_UP:
                return life, Ending(kind=EndKind.LOST)
            case None:
                pass


def _next_event(life: Life, events: EventQueue[Event], clock: Clock) -> Event | None:
    wake = wake_at(life)
    return events.get(timeout_seconds=None if wake is None else max(0.0, wake - clock.monotonic()))
