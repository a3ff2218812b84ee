"""Imports that are cut off at a chosen byte, and time that passes by being looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from imagekit.base.progress import Phase, SilentProgress


class TickingClock:
    """Three seconds pass whenever somebody looks, so that every milestone is noted."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def monotonic(self) -> float:
        self._seconds += 3
        return self._seconds

    def now(self) -> float:
        return self.monotonic()

    def sleep(self, seconds: float) -> None:
        self._seconds += seconds


class _BreakingPhase:
    def __init__(self, progress: BreakingProgress) -> None:
        self._progress = progress

    def advance(self, size_bytes: int) -> None:
        self._progress.left_bytes -= size_bytes
        if self._progress.left_bytes < 0:
            self._progress.fail()

    def resume_at(self, done_bytes: int) -> None:
        self._progress.resumed_bytes = done_bytes

    def set_total(self, total_bytes: int) -> None:
        """Nobody asks."""


class BreakingProgress(SilentProgress):
    """Fails when so many bytes were read, as Ctrl-C would."""

    def __init__(self, left_bytes: int = 0, error: BaseException | None = None) -> None:
        self.left_bytes = left_bytes
        self.error = error
        self.resumed_bytes = 0
        self.notes: list[str] = []

    def fail(self) -> None:
        """Break off, if this is to be broken."""
        if self.error is not None:
            raise self.error

    @contextlib.contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        yield _BreakingPhase(self)

    def note(self, message: str) -> None:
        self.notes.append(message)
