"""A machine's life as decisions, and driven against a hypervisor that only writes down what it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from launcher.events import EventQueue
from launcher.hypervisor.base import Ending, EndKind, MachineEvent, Started
from launcher.lifecycle import (
    DESTROY_SECONDS,
    PRESS_SECONDS,
    START_SECONDS,
    Action,
    Event,
    Life,
    Phase,
    StopRequested,
    after_request,
    after_start,
    after_wait,
    begin,
    drive,
    failure,
    wake_at,
)
from launcher.spec import MachineSpec

RUNNING = after_start(begin(grace_seconds=30, now=100))
STOPPING, _ = after_request(RUNNING, now=200)
FORCED, _ = after_request(STOPPING, now=210)
IGNORED, _ = after_wait(STOPPING, now=230)

DECISIONS = {
    "a start takes its time": (after_wait, begin(grace_seconds=30, now=100), 100 + START_SECONDS - 1, Phase.STARTING, None),
    "a start has an end": (after_wait, begin(grace_seconds=30, now=100), 100 + START_SECONDS, Phase.DESTROYING, Action.DESTROY),
    "a running machine runs": (after_wait, RUNNING, 1e9, Phase.RUNNING, None),
    "the first request presses": (after_request, RUNNING, 200, Phase.STOPPING, Action.PRESS_POWER_BUTTON),
    "also while it starts": (after_request, begin(grace_seconds=30, now=1), 2, Phase.STOPPING, Action.PRESS_POWER_BUTTON),
    "the second request takes the power": (after_request, STOPPING, 210, Phase.DESTROYING, Action.DESTROY),
    "the third changes nothing": (after_request, FORCED, 211, Phase.DESTROYING, None),
    "a deaf guest has time": (after_wait, STOPPING, 204, Phase.STOPPING, None),
    "a deaf guest is pressed again": (after_wait, STOPPING, 200 + PRESS_SECONDS, Phase.STOPPING, Action.PRESS_POWER_BUTTON),
    "a deaf guest loses its power": (after_wait, STOPPING, 230, Phase.DESTROYING, Action.DESTROY),
    "taking the power takes time": (after_wait, FORCED, 211, Phase.DESTROYING, None),
    "what cannot be ended is given up": (after_wait, FORCED, 210 + DESTROY_SECONDS, Phase.DESTROYING, Action.GIVE_UP),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_decision(name: str) -> None:
    decide, life, now, phase, action = DECISIONS[name]
    decided, told = decide(life, now=now)
    assert (decided.phase, told) == (phase, action)


@pytest.mark.parametrize("life", [begin(grace_seconds=30, now=0), STOPPING, FORCED, IGNORED])
def test_waking_up_always_leads_to_something(life: Life) -> None:
    """Else the driver would spin."""
    wake = wake_at(life)
    assert wake is not None
    assert after_wait(life, now=wake)[1] is not None


def test_button_pressed_again_moves_the_next_time() -> None:
    pressed, _ = after_wait(STOPPING, now=205)
    assert wake_at(pressed) == 205 + PRESS_SECONDS
    assert pressed.deadline == STOPPING.deadline


VERDICTS = {
    "the guest switched itself off": (RUNNING, EndKind.POWERED_OFF, None),
    "it did when asked": (STOPPING, EndKind.POWERED_OFF, None),
    "it did in the last moment": (IGNORED, EndKind.POWERED_OFF, None),
    "it was asked twice": (FORCED, EndKind.DESTROYED, None),
    "it was asked twice and hung": (FORCED, EndKind.LOST, None),
    "it ignored the request": (IGNORED, EndKind.DESTROYED, "ShutdownIgnored"),
    "it ignored the request and hung": (IGNORED, EndKind.LOST, "ShutdownIgnored"),
    "its kernel panicked": (RUNNING, EndKind.GUEST_CRASHED, "GuestCrashed"),
    "QEMU died": (RUNNING, EndKind.EMULATOR_DIED, "EmulatorDied"),
    "QEMU died on the way down": (STOPPING, EndKind.EMULATOR_DIED, "EmulatorDied"),
    "somebody else took its power": (RUNNING, EndKind.DESTROYED, "EmulatorDied"),
    "libvirtd died": (RUNNING, EndKind.LOST, "HypervisorLost"),
    "it did not start": (begin(grace_seconds=30, now=0), EndKind.START_FAILED, "StartFailed"),
}


@pytest.mark.parametrize("name", VERDICTS)
def test_verdict(name: str) -> None:
    life, kind, reason = VERDICTS[name]
    error = failure(life, Ending(kind=kind, detail="why"))
    assert (error.reason if error else None) == reason


class RecordingHypervisor:
    """Writes down what it is told, and answers with events."""

    def __init__(self, answer: Callable[[str], None]) -> None:
        self.told: list[str] = []
        self._answer = answer

    def start(self, spec: MachineSpec, *, on_event: Callable[[MachineEvent], None]) -> None:
        raise AssertionError("driving starts nothing")

    def press_power_button(self) -> None:
        self._tell("press")

    def destroy(self) -> None:
        self._tell("destroy")

    def _tell(self, word: str) -> None:
        self.told.append(word)
        self._answer(word)


class SteppingClock:
    """Time goes on by a second each time it is asked for."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        self.seconds += 1
        return self.seconds

    def now(self) -> float:
        return self.monotonic()

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


def driven(first: list[Event], answers: dict[str, Event], *, grace_seconds: float) -> tuple[list[str], Life, Ending]:
    events: EventQueue[Event] = EventQueue()
    for event in first:
        events.put(event)
    hypervisor = RecordingHypervisor(lambda word: events.put(answers[word]) if word in answers else None)
    life, ending = drive(hypervisor, events, grace_seconds=grace_seconds, clock=SteppingClock())
    return hypervisor.told, life, ending


OFF = Ending(kind=EndKind.POWERED_OFF)
GONE = Ending(kind=EndKind.DESTROYED)


def test_clean_end() -> None:
    told, life, ending = driven([Started(), StopRequested()], {"press": OFF}, grace_seconds=60)
    assert (told, ending) == (["press"], OFF)
    assert failure(life, ending) is None


def test_deaf_guest() -> None:
    told, life, ending = driven([Started(), StopRequested()], {"destroy": GONE}, grace_seconds=2)
    assert told == ["press", "destroy"]
    error = failure(life, ending)
    assert error is not None
    assert error.reason == "ShutdownIgnored"


def test_impatient_user() -> None:
    told, life, ending = driven([Started(), StopRequested(), StopRequested()], {"destroy": GONE}, grace_seconds=60)
    assert told == ["press", "destroy"]
    assert life.is_forced
    assert failure(life, ending) is None


def test_guest_that_ends_by_itself_is_told_nothing() -> None:
    told, _, ending = driven([Started(), OFF], {}, grace_seconds=60)
    assert (told, ending) == ([], OFF)
