"""Counts what is read from a source, and shows it."""

from __future__ import annotations

import threading

from imagekit.base.progress import Phase


class Meter:
    """Counts from any thread."""

    def __init__(self, phase: Phase) -> None:
        self._phase = phase
        self._lock = threading.Lock()
        self.fetched_bytes = 0

    def set_total(self, total_bytes: int | None) -> None:
        """Tell how much there is to read, when that is known."""
        if total_bytes is not None:
            self._phase.set_total(total_bytes)

    def count(self, size_bytes: int) -> None:
        """Count bytes that were read."""
        with self._lock:
            self.fetched_bytes += size_bytes
        self._phase.advance(size_bytes)

    def resume_at(self, done_bytes: int) -> None:
        """Show that an earlier run read so much."""
        self._phase.resume_at(done_bytes)
