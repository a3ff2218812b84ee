"""Events come in order from threads and signals, and wake up whoever waits."""

from __future__ import annotations

import os
import signal
import threading

from launcher.events import EventQueue, stop_signals


def test_order_and_timeout() -> None:
    events: EventQueue[int] = EventQueue()
    for number in range(10_000):  # more than the pipe holds
        events.put(number)
    assert [events.get(timeout_seconds=None) for _ in range(10_000)] == list(range(10_000))
    while (left := events.get(timeout_seconds=0.01)) is not None:
        raise AssertionError(left)


def test_signals_of_any_thread_wake_up_the_main_thread() -> None:
    """A signal that another thread takes does not interrupt the main thread; only the pipe tells it."""
    events: EventQueue[str] = EventQueue()
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals(events, make=lambda: "stop"):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):

            def raise_here(number: signal.Signals = number) -> None:
                signal.pthread_kill(threading.get_ident(), number)

            threading.Timer(0.05, raise_here).start()
            got = None
            while got is None:
                got = events.get(timeout_seconds=10)
            assert got == "stop"
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        stops = 0
        while stops < 2:
            assert events.get(timeout_seconds=10) in ("stop", None)
            stops += 1
    assert signal.getsignal(signal.SIGTERM) is before
