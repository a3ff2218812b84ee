"""Adopting what our children leave behind: QEMU, which libvirt detaches from itself.

As the subreaper (prctl(2)) this process becomes the parent of every detached descendant. That serves three ends: a
QEMU that ends is reaped at once (libvirt waits for its process id to vanish), its exit status is known, and the
parent-death signal that it was started with makes the kernel end it when we are killed. As PID 1 of a container the
adoption comes by itself and the rest is the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from imagekit.base.clock import SYSTEM_CLOCK

_PR_SET_CHILD_SUBREAPER = 36
_YIELD_SECONDS = 0.05
_GRACE_SECONDS = 3.0
_KILL_SECONDS = 5.0


class Subreaper:
    """Knows the adopted children and how they ended."""

    def __init__(self, *, own: frozenset[int]) -> None:
        self._own = own
        self._endings: dict[int, int] = {}
        self._has_ended = threading.Condition()
        self._is_closing = threading.Event()

    def exit_code(self, pid: int, *, patience_seconds: float = 1.0) -> int | None:
        """Return how the adopted process ``pid`` ended: its exit code, or minus the signal; None when that is not known.

        Its monitor's end may be heard before its own, so this waits for that a little.
        """
        with self._has_ended:
            self._has_ended.wait_for(lambda: pid in self._endings, patience_seconds)
            return self._endings.get(pid)

    def reap(self) -> None:
        """Reap adopted children as they end, until there are none or the context is left."""
        while True:
            try:
                os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                return
            if self._is_closing.is_set():
                return  # what ended is a child of whoever came after us
            if not any([self._reap_ended(pid) for pid in self._adopted()]):
                self._is_closing.wait(_YIELD_SECONDS)  # another child ended, and whoever started it waits for it

    def _reap_ended(self, pid: int) -> bool:
        """Reap the child ``pid`` if it has ended."""
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return False
        if ended:
            with self._has_ended:
                self._endings[pid] = os.waitstatus_to_exitcode(status)
                self._has_ended.notify_all()
        return bool(ended)

    def end_all(self) -> None:
        """End every adopted child that still runs, and wait until each is gone.

        QEMU writes what it holds back when it is asked to end; the kernel ends it when it does not.
        """
        now = SYSTEM_CLOCK.monotonic()
        for number, deadline in ((signal.SIGTERM, now + _GRACE_SECONDS), (signal.SIGKILL, now + _GRACE_SECONDS + _KILL_SECONDS)):
            for pid in self._adopted():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            while self._adopted() and SYSTEM_CLOCK.monotonic() < deadline:
                SYSTEM_CLOCK.sleep(0.01)

    def close(self) -> None:
        """Reap no more; the thread ends with the next child that does."""
        self._is_closing.set()

    def _adopted(self) -> list[int]:
        return [pid for pid in _children() if self._is_adopted(pid)]

    def _is_adopted(self, pid: int) -> bool:
        """Tell a detached descendant, which left our session, from a child that this process started itself."""
        with contextlib.suppress(ProcessLookupError):
            return pid not in self._own and os.getsid(pid) != os.getsid(0)
        return False


@contextlib.contextmanager
def adoption() -> Iterator[None]:
    """Become the parent of every detached descendant while the context lasts."""
    _set_subreaper(is_on=True)
    try:
        yield
    finally:
        _set_subreaper(is_on=False)


@contextlib.contextmanager
def reaping(own_pid: int) -> Iterator[Subreaper]:
    """Reap adopted children in a thread, and end those that are left with the context.

    What this process started before, and ``own_pid``, is not touched; it starts nothing else in a session of its own
    while the context lasts.
    """
    reaper = Subreaper(own=frozenset({own_pid, *_children()}))
    threading.Thread(target=reaper.reap, name="reaper", daemon=True).start()
    try:
        yield reaper
    finally:
        reaper.end_all()
        reaper.close()


def _set_subreaper(*, is_on: bool) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_CHILD_SUBREAPER, int(is_on), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def _children() -> list[int]:
    """Return the children of every thread of ours (proc(5))."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found
