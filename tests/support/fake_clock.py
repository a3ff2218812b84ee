"""A clock whose sleeps take no time."""

from __future__ import annotations

import time


class FakeClock:
    """Real time plus what was slept; ``sleeps`` records how long each sleep would have been."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []
        self._skipped_seconds = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._skipped_seconds += seconds

    def monotonic(self) -> float:
        return time.monotonic() + self._skipped_seconds

    def now(self) -> float:
        return time.time() + self._skipped_seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.advance(seconds)
