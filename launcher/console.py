"""The serial console: what the guest prints, and on a terminal what the user types.

QEMU connects to a socket of ours when the machine starts. One thread moves bytes both ways with small, fixed buffers:
when our output blocks, the guest's serial port waits, and when the guest does not read, we stop reading the keyboard.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from launcher.account import give_away

ESCAPE = b"\x1d"  # Ctrl-]
_READ_BYTES = 16 * 1024
_DRAIN_SECONDS = 5.0
_MOST_LAST_READS = 64


class Console:
    """Moves bytes between the guest's serial port and two descriptors."""

    def __init__(self, listener: socket.socket, *, input_fd: int | None, output_fd: int, on_escape: Callable[[], None]) -> None:
        self._listener = listener
        self._input_fd = input_fd
        self._output_fd = output_fd
        self._on_escape = on_escape
        self._has_escape = input_fd is not None and os.isatty(input_fd)
        self._pending = b""
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)

    def start(self) -> None:
        """Begin to wait for QEMU's connection."""
        self._thread.start()

    def close(self) -> None:
        """Pass on what the guest still printed, and stop."""
        os.close(self._wake_write)
        self._thread.join(_DRAIN_SECONDS)
        if not self._thread.is_alive():
            os.close(self._wake_read)

    def _run(self) -> None:
        with contextlib.suppress(OSError), selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            if not any(key.fileobj is self._listener for key, _ in selector.select()):
                return  # closed before QEMU came
            connection, _ = self._listener.accept()
            selector.unregister(self._listener)
            with connection:
                connection.setblocking(False)
                self._move(connection, selector)

    def _move(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        selector.register(connection, selectors.EVENT_READ)
        rest = _MOST_LAST_READS
        while rest:
            self._choose(connection, selector)
            ready = {key.fileobj: events for key, events in selector.select()}
            if ready.get(connection, 0) & selectors.EVENT_READ and not self._pass_output(connection):
                return
            if ready.get(connection, 0) & selectors.EVENT_WRITE:
                self._pending = self._pending[connection.send(self._pending) :]
            if self._input_fd is not None and self._input_fd in ready:
                self._take_input(selector)
            if self._wake_read in ready:  # closing: pass on what has come, but not for ever
                rest = rest - 1 if connection in ready else 0

    def _choose(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        """Listen to the keyboard while nothing is on its way to the guest, else for room on that way."""
        if self._input_fd is not None:
            is_listening = self._input_fd in selector.get_map()
            if self._pending and is_listening:
                selector.unregister(self._input_fd)
            elif not self._pending and not is_listening:
                try:
                    selector.register(self._input_fd, selectors.EVENT_READ)
                except PermissionError:  # a regular file, which epoll refuses: always ready, so read at once
                    self._take_input(selector)
        selector.modify(connection, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._pending else 0))

    def _pass_output(self, connection: socket.socket) -> bool:
        """Write what the guest printed; False at the end of the connection."""
        try:
            chunk = connection.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(self._output_fd, view) :]
            except BlockingIOError:  # whoever shares the descriptor made it so
                select.select([], [self._output_fd], [])
            except OSError:  # nobody reads any more, or there is no room: the machine goes on without an audience
                self._output_fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        return bool(chunk)

    def _take_input(self, selector: selectors.BaseSelector) -> None:
        assert self._input_fd is not None
        try:
            typed = os.read(self._input_fd, _READ_BYTES)
        except OSError:
            typed = b""
        if not typed:
            with contextlib.suppress(KeyError):
                selector.unregister(self._input_fd)
            self._input_fd = None
            return
        if self._has_escape and ESCAPE in typed:
            for _ in range(typed.count(ESCAPE)):
                self._on_escape()
            typed = typed.replace(ESCAPE, b"")
        self._pending += typed


@contextlib.contextmanager
def console(path: Path, *, input_fd: int | None, output_fd: int, on_escape: Callable[[], None]) -> Iterator[None]:
    """Serve the console socket ``path`` while the context lasts.

    Args:
        input_fd: Where the user types; a terminal is set to raw mode, and Ctrl-] on it calls ``on_escape``. None for no input.
        output_fd: Where the guest's output goes.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        give_away(path)
        listener.listen(1)
        if input_fd is not None and os.isatty(input_fd):
            stack.enter_context(_raw_terminal(input_fd))
        pump = Console(listener, input_fd=input_fd, output_fd=output_fd, on_escape=on_escape)
        pump.start()
        stack.callback(pump.close)
        yield


@contextlib.contextmanager
def _raw_terminal(descriptor: int) -> Iterator[None]:
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error, OSError):  # the terminal may be gone: that is what SIGHUP tells
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
            print(file=sys.stderr)  # the guest's cursor is somewhere in a line
