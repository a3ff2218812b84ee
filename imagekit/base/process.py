"""The one door to other programs.

Every program runs with an argument list (no shell), an allow-listed environment, closed standard input, a process
group of its own, a time limit, and bounded output; the whole group is ended when the call fails or is interrupted,
and the kernel ends it when this process is killed. Nothing else in the toolkit imports ``subprocess``.
"""

from __future__ import annotations

import contextlib
import os
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessLimits:
    """What a program may use.

    Attributes:
        timeout_seconds: Wall time until it is ended.
        address_space_bytes: RLIMIT_AS; unlimited when None.
        cpu_seconds: RLIMIT_CPU; unlimited when None.
        file_size_bytes: RLIMIT_FSIZE; unlimited when None.
        output_bytes: Most that is kept of standard output and of standard error, each; more is an error for
            standard output and dropped (the oldest first) for standard error.
    """

    timeout_seconds: float
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
        DeadlineError: It did not end in time.
    """
    with _started(argv, limits=limits, environment=environment, pass_fds=pass_fds, purpose=purpose) as process:
        stdout, stderr = _collect(process, argv, purpose=purpose, limits=limits, on_output=on_output)
        exit_code = process.wait()
    if exit_code not in accepted_exit_codes:
        raise _failure(argv, purpose=purpose, exit_code=exit_code, stderr=stderr, hint=hint)
    return Completed(exit_code=exit_code, stdout=stdout, stderr=stderr)


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
        with contextlib.suppress(OSError):
            return _tail(self.log_path.read_bytes())
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

    The group gets SIGTERM at the end, and SIGKILL when it has not ended after ``grace_seconds``.

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
        if process.poll() is None:
            _end_group(process, grace_seconds=1.0)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _collect(
    process: subprocess.Popen[bytes],
    argv: Sequence[str],
    *,
    purpose: str,
    limits: ProcessLimits,
    on_output: Callable[[bytes], None] | None,
) -> tuple[bytes, bytes]:
    stdout, stderr = bytearray(), bytearray()
    deadline = SYSTEM_CLOCK.monotonic() + limits.timeout_seconds
    with selectors.DefaultSelector() as selector:
        for pipe in filter(None, (process.stdout, process.stderr)):
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            remaining_seconds = deadline - SYSTEM_CLOCK.monotonic()
            if remaining_seconds <= 0:
                raise DeadlineError(f"cannot {purpose}: {argv[0]} did not end in {format_duration(limits.timeout_seconds)}")
            for key, _ in selector.select(remaining_seconds):
                chunk = os.read(key.fd, _READ_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    stderr += chunk
                    del stderr[: -limits.output_bytes]
                elif on_output is not None:
                    on_output(chunk)
                else:
                    stdout += chunk
                    if len(stdout) > limits.output_bytes:
                        raise ToolError(f"cannot {purpose}: {argv[0]} printed more than {limits.output_bytes} bytes")
    return bytes(stdout), bytes(stderr)


def _end_group(process: subprocess.Popen[bytes], *, grace_seconds: float) -> None:
    """End the process group and reap its leader; the group may outlive the leader, so it is always signalled."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _tail(output: bytes) -> str:
    return "\n".join(output.decode("utf-8", "replace").strip().splitlines()[-_STDERR_LINES:])


def _failure(argv: Sequence[str], *, purpose: str, exit_code: int, stderr: bytes, hint: str) -> ToolError:
    if exit_code < 0:
        ending, reason = f"was ended by {signal.Signals(-exit_code).name}", "ToolCrashed"
    else:
        ending, reason = f"ended with exit code {exit_code}", "ToolFailed"
    lines = [f"cannot {purpose}: {argv[0]} {ending}", f"command: {shlex.join(argv)}"]
    if said := _tail(stderr):
        lines.append(said)
    return ToolError("\n".join(lines), reason=reason, hint=hint)
