"""A machine that the real command runs: its console, its end and its exit code."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.commands import command_environment, command_line

_LONGEST_CONSOLE = 1 << 20
_END_SECONDS = 90.0


class BootedMachine:
    """A running ``virt-launcher run``; what the guest printed is in ``console``, our own words in ``messages``."""

    def __init__(self, process: subprocess.Popen[bytes], messages: Path) -> None:
        self.process = process
        self.console = b""
        self._messages = messages
        self._seen = 0

    @property
    def messages(self) -> str:
        """What the command wrote on standard error."""
        return self._messages.read_text()

    def wait_for(self, text: bytes, seconds: float) -> bytes:
        """Return the console's line with ``text``, which must come within ``seconds`` and after what was waited for before."""
        deadline = time.monotonic() + seconds
        while (found := self.console.find(text, self._seen)) < 0:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(
                    f"{text!r} did not come in {seconds:.0f} s:\n{self.console.decode(errors='replace')}\n{self.messages}"
                )
        self._seen = found + len(text)
        line_start = self.console.rfind(b"\n", 0, found) + 1
        return self.console[line_start : self._seen]

    def send(self, text: bytes) -> None:
        """Type ``text`` on the guest's console."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def shutdown(self) -> int:
        """Ask for the end as Ctrl-C does, and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()

    def wait(self, seconds: float = _END_SECONDS) -> int:
        """Return the exit code of the command, which ends within ``seconds``."""
        deadline = time.monotonic() + seconds
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(max(1.0, deadline - time.monotonic()))

    def _read(self, seconds: float) -> bool:
        """Read more of the console; False at its end or when nothing came in time."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(max(0.0, seconds)):
                return False
        chunk = os.read(self.process.stdout.fileno(), 65536)
        self.console += chunk
        assert len(self.console) < _LONGEST_CONSOLE, "the guest prints without end"
        return bool(chunk)


@contextlib.contextmanager
def booted(source: str, *arguments: str, memory: str = "128M") -> Iterator[BootedMachine]:
    """Run ``virt-launcher run SOURCE`` with its console in pipes; the machine is ended with the context."""
    messages_fd = os.memfd_create("messages")
    command = command_line("virt-launcher", "run", source, "--memory", memory, "--progress=plain", *arguments)
    process = subprocess.Popen(
        command, env=command_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages_fd, bufsize=0
    )
    try:
        yield BootedMachine(process, Path(f"/proc/self/fd/{messages_fd}"))
    finally:
        if process.poll() is None:
            for _ in range(2):  # once for the power button, once more for the power
                process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        os.close(messages_fd)
