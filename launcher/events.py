"""What happens to a machine, in order, from any thread and from signals.

A signal may be delivered to any thread, and then interrupts nothing that the main thread waits in. So the wait is for a
pipe, into which the interpreter itself writes when a signal comes (signal.set_wakeup_fd), and ``put`` otherwise.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DRAIN_BYTES = 4096

Event = TypeVar("Event")


class EventQueue(Generic[Event]):
    """A queue that may be filled from threads and signal handlers, and is read in the main thread.

    Its pipe is never closed, because a thread that outlives the machine may still write to it.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._read_fd, self._write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def wakeup_fd(self) -> int:
        """The descriptor that wakes up ``get`` when it is written to."""
        return self._write_fd

    def put(self, event: Event) -> None:
        """Add an event; safe in a signal handler."""
        self._events.append(event)
        with contextlib.suppress(BlockingIOError):  # full: it wakes up anyway
            os.write(self._write_fd, b"\0")

    def get(self, *, timeout_seconds: float | None) -> Event | None:
        """Return the next event, or None when none came in time; None may come early."""
        if not self._events:
            select.select([self._read_fd], [], [], timeout_seconds)
            with contextlib.suppress(BlockingIOError):
                os.read(self._read_fd, _DRAIN_BYTES)
        return self._events.popleft() if self._events else None


@contextlib.contextmanager
def stop_signals(events: EventQueue[Event], *, make: Callable[[], Event]) -> Iterator[None]:
    """Put an event for each SIGINT, SIGTERM and SIGHUP while the context lasts, so that none of them unwinds the stack.

    Only the main thread may enter.
    """
    before_fd = signal.set_wakeup_fd(events.wakeup_fd, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda _number, _frame: events.put(make())) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
        signal.set_wakeup_fd(before_fd)
