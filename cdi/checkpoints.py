"""When an import notes how far it is: rarely enough to cost nothing, often enough to lose little."""

from __future__ import annotations

from cdi.journal import Journal
from cdi.volume_writer import ResumableWriter
from imagekit.base.clock import Clock
from imagekit.base.files import translate_os_error

_SECONDS = 2.0


class Checkpoints:
    """Makes the disk durable and notes it in the journal, in this order, every two seconds; a decoder's ``Milestones``.

    Args:
        start_bytes: Where in the source the journal stands already.
    """

    def __init__(self, journal: Journal, writer: ResumableWriter, *, start_bytes: int, clock: Clock) -> None:
        self._journal = journal
        self._writer = writer
        self._clock = clock
        self._noted_at = clock.monotonic()
        self._start_bytes = self._noted_bytes = start_bytes

    @property
    def start_bytes(self) -> int:
        """Everything of the source before this was written by an earlier run."""
        return self._start_bytes

    @property
    def noted_bytes(self) -> int:
        """Up to where in the source the next run need not read."""
        return self._noted_bytes

    def is_due(self) -> bool:
        """Tell whether the last note is two seconds old."""
        return self._clock.monotonic() - self._noted_at >= _SECONDS

    def reach(self, done_bytes: int) -> None:
        """Note that everything before ``done_bytes`` of the source was handed to the writer.

        Raises:
            ImagekitError: The disk or the journal could not be made durable.
        """
        if done_bytes > self._noted_bytes:
            self._writer.sync()
            try:
                self._journal.record(done_bytes)
            except OSError as error:
                raise translate_os_error(error, doing="note how far the import is") from error
            self._noted_bytes = done_bytes
        self._noted_at = self._clock.monotonic()
