"""Progress of long work, on standard error: a bar on a terminal, plain lines in CI, JSON on request."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol, TextIO

from imagekit.base.clock import SYSTEM_CLOCK, Clock
from imagekit.base.units import format_duration, format_size

_PLAIN_STEP = 0.05
_PLAIN_SECONDS = 15.0
_JSON_SECONDS = 0.5


class ProgressMode(StrEnum):
    """How progress is told; AUTO is TTY on a terminal and PLAIN elsewhere."""

    AUTO = "auto"
    TTY = "tty"
    PLAIN = "plain"
    JSON = "json"
    NONE = "none"


class Phase(Protocol):
    """One stretch of work, measured in bytes."""

    def advance(self, size_bytes: int) -> None:
        """Count more bytes as done; safe from any thread."""
        ...

    def resume_at(self, done_bytes: int) -> None:
        """Count bytes that an earlier run did; they do not count for the rate."""
        ...

    def set_total(self, total_bytes: int) -> None:
        """Tell the total once it is known."""
        ...


class Progress(Protocol):
    """Where work tells how far it is."""

    def phase(self, name: str, total_bytes: int | None = None) -> contextlib.AbstractContextManager[Phase]:
        """Open a phase; ``name`` is a short verb like ``push``."""
        ...

    def note(self, message: str) -> None:
        """Tell one line, like a retry or a resume."""
        ...


class _Counter(ABC):
    """Counts a phase and decides when it is time to tell."""

    def __init__(self, name: str, total_bytes: int | None, clock: Clock) -> None:
        self.name = name
        self.total_bytes = total_bytes
        self.done_bytes = 0
        self._resumed_bytes = 0
        self._clock = clock
        self._start = self._told_at = clock.monotonic()
        self._told_bytes = 0
        self._lock = threading.Lock()

    def advance(self, size_bytes: int) -> None:
        with self._lock:
            self.done_bytes += size_bytes
            is_due = self._is_due()
            if is_due:
                self._told_at, self._told_bytes = self._clock.monotonic(), self.done_bytes
        if is_due:
            self.tell()

    def resume_at(self, done_bytes: int) -> None:
        self.done_bytes = self._told_bytes = self._resumed_bytes = done_bytes

    def set_total(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes

    @property
    def elapsed_seconds(self) -> float:
        return self._clock.monotonic() - self._start

    @property
    def rate(self) -> float:
        """Bytes a second of this run."""
        return (self.done_bytes - self._resumed_bytes) / max(self.elapsed_seconds, 1e-3)

    @property
    def eta_seconds(self) -> float | None:
        if self.total_bytes is None or self.rate <= 0:
            return None
        return max(self.total_bytes - self.done_bytes, 0) / self.rate

    def since_told_seconds(self) -> float:
        return self._clock.monotonic() - self._told_at

    def since_told_share(self) -> float:
        return (self.done_bytes - self._told_bytes) / self.total_bytes if self.total_bytes else 0.0

    @abstractmethod
    def _is_due(self) -> bool:
        """Return whether enough happened since the last time."""

    @abstractmethod
    def tell(self, *, is_last: bool = False) -> None:
        """Print where the phase is."""


class _PlainCounter(_Counter):
    """A line each 5 % (but not more than one a second), and each 15 s."""

    def _is_due(self) -> bool:
        seconds = self.since_told_seconds()
        return seconds >= _PLAIN_SECONDS or (seconds >= 1.0 and self.since_told_share() >= _PLAIN_STEP)

    def tell(self, *, is_last: bool = False) -> None:
        parts = [f"{datetime.fromtimestamp(self._clock.now(), UTC):%Y-%m-%dT%H:%M:%SZ}", self.name]
        if self.total_bytes and not is_last:
            parts.append(f"{format_size(self.done_bytes)} of {format_size(self.total_bytes)}")
            parts.append(f"{100 * self.done_bytes / self.total_bytes:.0f} %")
        else:
            parts.append(format_size(self.done_bytes))
        parts.append(f"{format_size(self.rate)}/s")
        if is_last:
            parts.append(f"done in {format_duration(self.elapsed_seconds)}")
        elif self.eta_seconds is not None:
            parts.append(f"eta {format_duration(self.eta_seconds)}")
        print("  ".join(parts), file=sys.stderr, flush=True)


class _JsonCounter(_Counter):
    """One object a line, twice a second at most; the last one has ``"finished": true``."""

    def _is_due(self) -> bool:
        return self.since_told_seconds() >= _JSON_SECONDS

    def tell(self, *, is_last: bool = False) -> None:
        _print_json(
            self._clock,
            phase=self.name,
            doneBytes=self.done_bytes,
            totalBytes=self.total_bytes,
            bytesPerSecond=round(self.rate),
            etaSeconds=None if self.eta_seconds is None else round(self.eta_seconds, 1),
            finished=is_last,
        )


def _print_json(clock: Clock, **fields: Any) -> None:
    time = f"{datetime.fromtimestamp(clock.now(), UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    print(json.dumps({"schemaVersion": 1, "time": time, **fields}), file=sys.stderr, flush=True)


class _LineProgress:
    """Progress as lines, plain or JSON."""

    def __init__(self, counter: type[_Counter], clock: Clock) -> None:
        self._counter = counter
        self._clock = clock

    @contextlib.contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        counter = self._counter(name, total_bytes, self._clock)
        yield counter
        counter.tell(is_last=True)

    def note(self, message: str) -> None:
        if self._counter is _JsonCounter:
            _print_json(self._clock, note=message)
        else:
            print(message, file=sys.stderr, flush=True)


class _BarPhase:
    """A tqdm bar."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def advance(self, size_bytes: int) -> None:
        self._bar.update(size_bytes)

    def resume_at(self, done_bytes: int) -> None:
        self._bar.initial = done_bytes
        self._bar.n = done_bytes
        self._bar.refresh()

    def set_total(self, total_bytes: int) -> None:
        self._bar.total = total_bytes
        self._bar.refresh()


class _BarProgress:
    """Progress as tqdm bars, one a phase."""

    @contextlib.contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        from tqdm import tqdm  # a tenth of a second that only a terminal needs

        with tqdm(
            desc=name,
            total=total_bytes,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            dynamic_ncols=True,
            mininterval=0.2,
            file=sys.stderr,
        ) as bar:
            yield _BarPhase(bar)

    def note(self, message: str) -> None:
        from tqdm import tqdm

        tqdm.write(message, file=sys.stderr)


class _SilentPhase:
    def advance(self, size_bytes: int) -> None:
        """Nobody listens."""

    def resume_at(self, done_bytes: int) -> None:
        """Nobody listens."""

    def set_total(self, total_bytes: int) -> None:
        """Nobody listens."""


class SilentProgress:
    """Progress that nobody listens to."""

    @contextlib.contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        """Open a phase that tells nothing."""
        yield _SilentPhase()

    def note(self, message: str) -> None:
        """Tell nothing."""


def open_progress(
    mode: ProgressMode, *, stream: TextIO | None = None, is_ci: bool = False, clock: Clock = SYSTEM_CLOCK
) -> Progress:
    """Return where a command tells its progress.

    Args:
        stream: What AUTO looks at to tell whether a person watches; standard error when omitted.
        is_ci: Whether a CI system runs us; AUTO prints plain lines then.
    """
    if mode is ProgressMode.AUTO:
        watched = (stream or sys.stderr).isatty() and not is_ci
        mode = ProgressMode.TTY if watched else ProgressMode.PLAIN
    match mode:
        case ProgressMode.TTY:
            return _BarProgress()
        case ProgressMode.JSON:
            return _LineProgress(_JsonCounter, clock)
        case ProgressMode.NONE:
            return SilentProgress()
        case _:
            return _LineProgress(_PlainCounter, clock)
