"""The one door to other programs.

Every program runs with an argument list (no shell), an allow-listed environment, closed standard input, a process
group of its own, a time limit, and bounded output; the whole group is ended when the call fails or is interrupted,
and the kernel ends it when this process is killed. Nothing else in the toolkit imports ``subprocess``.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagekit.base.clock import SYSTEM_CLOCK
from imagekit.base.errors import DeadlineError, ToolError
from imagekit.base.units import MIB, format_duration

_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STDERR_LINES = 12
_GRACE_SECONDS = 5.0
_READ_BYTES = 64 * 1024
_LONGEST_WAIT_SECONDS = 3600.0  # one call of poll(2) takes at most 24 days


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """What a program may use.

    Attributes:
        timeout_seconds: Wall time until it is ended.
        stall_seconds: Silence on standard output after which it is ended; for programs that tell their progress.
        address_space_bytes: RLIMIT_AS; unlimited when None.
        cpu_seconds: RLIMIT_CPU; unlimited when None.
        file_size_bytes: RLIMIT_FSIZE; unlimited when None.
        output_bytes: Most that is kept of standard output and of standard error, each; more is an error for
            standard output and dropped (the oldest first) for standard error.
    """

    timeout_seconds: float
    stall_seconds: float | None = None
    address_space_bytes: int | None = None
    cpu_seconds: int | None = None
    file_size_bytes: int | None = None
    output_bytes: int = MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A program that ended: its exit code and what it printed."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def find_program(name: str) -> Path | None:
    """Return where the program ``name`` is installed, or None."""
    found = shutil.which(name, path=_SEARCH_PATH)
    return Path(found) if found else None


def run(
    argv: Sequence[str],
    *,
    purpose: str,
    limits: ProcessLimits,
    accepted_exit_codes: frozenset[int] = frozenset({0}),
    environment: Mapping[str, str] | None = None,
    on_output: Callable[[bytes], None] | None = None,
    pass_fds: Sequence[int] = (),
    hint: str = "",
) -> Completed:
    """Run a program to its end.

    Args:
        argv: Program and arguments; the program is looked up in the system's directories.
        purpose: What this is for, in the error's words: ``"read the disk's format"``.
        environment: Variables added to the allow-listed ones.
        on_output: Called with each piece of standard output as it comes; nothing is kept then.
        hint: Added to the error when the program fails.

    Raises:
        ToolError: The program is missing, ended with another exit code, printed too much or died by a signal.
        DeadlineError: It did not end in time, or was silent for too long.
    """
    with _started(argv, limits=limits, environment=environment, pass_fds=pass_fds, purpose=purpose) as process:
        output = _Output(limits, on_output, subject=f"cannot {purpose}: {argv[0]}")
        _collect(process, output)
    exit_code = process.returncode
    if exit_code not in accepted_exit_codes:
        raise _failure(argv, purpose=purpose, exit_code=exit_code, stderr=bytes(output.stderr), hint=hint)
    return Completed(exit_code=exit_code, stdout=bytes(output.stdout), stderr=bytes(output.stderr))


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A program that runs beside us until its context ends."""

    purpose: str
    log_path: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """The process id, also the process group's."""
        return self.process.pid

    def is_running(self) -> bool:
        """Return whether it still runs; a program that ended is reaped."""
        return self.process.poll() is None

    def log_tail(self) -> str:
        """Return the last lines that it printed."""
        with contextlib.suppress(OSError), self.log_path.open("rb") as log:
            log.seek(max(0, self.log_path.stat().st_size - _READ_BYTES))
            return _tail(log.read(_READ_BYTES))
        return ""


@contextlib.contextmanager
def daemon(
    argv: Sequence[str],
    *,
    purpose: str,
    log_path: Path,
    environment: Mapping[str, str] | None = None,
    grace_seconds: float = _GRACE_SECONDS,
) -> Iterator[Daemon]:
    """Run a program while the context lasts; its output goes to ``log_path``.

    The group gets SIGTERM at the end, and SIGKILL when it has not ended after ``grace_seconds``. Call it in a thread that
    lasts as long: the kernel ends the program with the thread that started it.

    Raises:
        ToolError: The program is missing.
    """
    with log_path.open("ab") as log:
        process = _start(argv, limits=None, environment=environment, pass_fds=(), stdout=log.fileno(), purpose=purpose)
    try:
        yield Daemon(purpose=purpose, log_path=log_path, process=process)
    finally:
        _end_group(process, grace_seconds=grace_seconds)


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {"PATH": _SEARCH_PATH, "LC_ALL": "C.UTF-8", **(extra or {})}


def _wrapped(argv: Sequence[str], limits: ProcessLimits | None) -> list[str]:
    """Put the kernel's guards before ``argv``: util-linux's setpriv(1) and prlimit(1)."""
    guards = ["setpriv", "--pdeathsig", "KILL"]
    if limits is not None:
        options = [
            f"--{name}={value}"
            for name, value in (
                ("as", limits.address_space_bytes),
                ("cpu", limits.cpu_seconds),
                ("fsize", limits.file_size_bytes),
            )
            if value is not None
        ]
        guards += ["prlimit", "--core=0", *options]
    return [*guards, "--", *argv]


def _start(
    argv: Sequence[str],
    *,
    limits: ProcessLimits | None,
    environment: Mapping[str, str] | None,
    pass_fds: Sequence[int],
    stdout: int,
    purpose: str,
) -> subprocess.Popen[bytes]:
    if find_program(argv[0]) is None:
        raise ToolError(
            f"cannot {purpose}: the program {argv[0]!r} is not installed",
            reason="ToolMissing",
            hint="run `imagekit doctor` to see which Debian package has it",
        )
    return subprocess.Popen(
        _wrapped(argv, limits),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE if stdout == subprocess.PIPE else subprocess.STDOUT,
        env=_environment(environment),
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )


@contextlib.contextmanager
def _started(
    argv: Sequence[str],
    *,
    limits: ProcessLimits,
    environment: Mapping[str, str] | None,
    pass_fds: Sequence[int],
    purpose: str,
) -> Iterator[subprocess.Popen[bytes]]:
    process = _start(
        argv,
        limits=limits,
        environment=environment,
        pass_fds=pass_fds,
        stdout=subprocess.PIPE,
        purpose=purpose,
    )
    try:
        yield process
    finally:
        _end_group(process, grace_seconds=1.0)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


class _Output:
    """What a running program printed so far, within its limits."""

    def __init__(self, limits: ProcessLimits, on_output: Callable[[bytes], None] | None, *, subject: str) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        self._limits = limits
        self._on_output = on_output
        self._subject = subject
        self._started_at = self._heard_at = SYSTEM_CLOCK.monotonic()

    def take_stdout(self, chunk: bytes) -> None:
        self._heard_at = SYSTEM_CLOCK.monotonic()
        if self._on_output is not None:
            self._on_output(chunk)
            return
        self.stdout += chunk
        if len(self.stdout) > self._limits.output_bytes:
            raise ToolError(f"{self._subject} printed more than {self._limits.output_bytes} bytes")

    def take_stderr(self, chunk: bytes) -> None:
        self.stderr += chunk
        del self.stderr[: -self._limits.output_bytes]

    def patience_seconds(self) -> float:
        """Return how long the program may still be silent, or raise when its time is over."""
        now = SYSTEM_CLOCK.monotonic()
        remaining_seconds = self._started_at + self._limits.timeout_seconds - now
        if remaining_seconds <= 0:
            raise DeadlineError(f"{self._subject} did not end in {format_duration(self._limits.timeout_seconds)}")
        if self._limits.stall_seconds is None:
            return remaining_seconds
        silence_seconds = self._heard_at + self._limits.stall_seconds - now
        if silence_seconds <= 0:
            raise DeadlineError(f"{self._subject} made no progress for {format_duration(self._limits.stall_seconds)}")
        return min(remaining_seconds, silence_seconds)


def _collect(process: subprocess.Popen[bytes], output: _Output) -> None:
    """Read what the program prints until it ended and both pipes are closed; it stays to be reaped."""
    assert process.stdout is not None
    assert process.stderr is not None
    with selectors.DefaultSelector() as selector, _watched(process) as leader:
        selector.register(process.stdout, selectors.EVENT_READ, output.take_stdout)
        selector.register(process.stderr, selectors.EVENT_READ, output.take_stderr)
        selector.register(leader, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(min(output.patience_seconds(), _LONGEST_WAIT_SECONDS)):
                if key.fd == leader:
                    selector.unregister(leader)
                    _signal_group(process, signal.SIGKILL)  # what it left behind would hold the pipes open
                elif chunk := os.read(key.fd, _READ_BYTES):
                    key.data(chunk)
                else:
                    selector.unregister(key.fileobj)


@contextlib.contextmanager
def _watched(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """Open a descriptor that becomes readable when the program ends; it does not reap it."""
    descriptor = os.pidfd_open(process.pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end_group(process: subprocess.Popen[bytes], *, grace_seconds: float) -> None:
    """End the process group and reap its leader; the group may outlive the leader, so it is always signalled.

    The leader is reaped last: until then its id, which is the group's, cannot become somebody else's.
    """
    if process.returncode is None:
        with _watched(process) as leader:
            waiter = select.poll()
            waiter.register(leader, select.POLLIN)
            if not waiter.poll(0):
                _signal_group(process, signal.SIGTERM)
                waiter.poll(grace_seconds * 1000)
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _tail(output: bytes) -> str:
    return "\n".join(output.decode("utf-8", "replace").strip().splitlines()[-_STDERR_LINES:])


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):  # most real-time signals have no name
        return signal.Signals(number).name
    return f"signal {number}"


def _failure(argv: Sequence[str], *, purpose: str, exit_code: int, stderr: bytes, hint: str) -> ToolError:
    if exit_code < 0:
        ending, reason = f"was ended by {_signal_name(-exit_code)}", "ToolCrashed"
    else:
        ending, reason = f"ended with exit code {exit_code}", "ToolFailed"
    said = _tail(stderr)
    lines = [f"cannot {purpose}: {argv[0]} {ending}", f"command: {shlex.join(argv)}", *([said] if said else [])]
    return ToolError("\n".join(lines), reason=reason, hint=hint, said=said)
