"""Ctrl-C and its relatives as events, so that nothing is unwound in the middle while a machine runs."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def stop_signals(on_stop: Callable[[], None]) -> Iterator[None]:
    """Call ``on_stop`` for each SIGINT, SIGTERM and SIGHUP while the context lasts; it must be safe in a signal handler.

    Only the main thread may enter.
    """
    before = {number: signal.signal(number, lambda _number, _frame: on_stop()) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
