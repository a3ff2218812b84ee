"""A machine: a set of namespaces whose first process, when it ends, takes everything in it along.

That makes ``down`` certain: the kernel ends every process of a process-id namespace with its first one, and mounts, links
and packet filters go with the namespaces that nobody uses any more. Processes are found by their cgroups, never by name.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagekit.base.errors import ToolError
from imagekit.base.process import Completed, ProcessLimits, run
from tests.cluster import cgroups
from tests.cluster.names import Names

_START_SECONDS = 20.0
_INIT = "init"
_NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid")

# Ends when the daemon is in a session and in groups of its own: the process gate ends what is left of its own session then.
_DETACH = 'setsid --fork sh -c "$0" "$@" | read -r _'

# Joins the groups before the program starts, so that nothing of ours ever runs outside them.
_JOIN_AND_RUN = """
log=$1; shift
while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit 1; shift; done
shift
echo joined
exec "$@" </dev/null >>"$log" 2>&1
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine of a cluster; ``search_path`` is the PATH of its programs."""

    names: Names
    name: str
    search_path: str

    @property
    def directory(self) -> Path:
        return self.names.machine_directory(self.name)

    def start(self, pause: str) -> None:
        """Make the namespaces, with ``pause`` as the first process in them."""
        self.names.log_path(self.name, _INIT).parent.mkdir(parents=True, exist_ok=True)
        options = [*_NAMESPACES, "--fork", "--kill-child=KILL", "--mount-proc", "--propagation", "private"]
        self._start_detached(_INIT, ["unshare", *options, pause], {})
        self._await_init()
        self.run(["hostname", self.name], purpose="name it")
        self.run(["ip", "link", "set", "lo", "up"], purpose="bring its loopback up")

    def run(self, argv: Sequence[str], *, purpose: str, timeout_seconds: float = 30.0) -> Completed:
        """Run a program on the machine to its end."""
        environment = {"PATH": self.search_path}
        limits = ProcessLimits(timeout_seconds=timeout_seconds)
        return run([*self._entry(), *argv], purpose=f"{self.name}: {purpose}", limits=limits, environment=environment)

    def start_part(self, part: str, argv: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        """Start a daemon on the machine; it runs until the machine ends, or its own end."""
        record = {"argv": list(argv), "environment": dict(environment or {})}
        self._record(part).write_text(json.dumps(record))
        # Forked once more: it becomes a child of the machine's first process, and nsenter need not wait for it.
        self._start_detached(part, [*self._entry(), "setsid", "--fork", *argv], environment or {})

    def restart_part(self, part: str) -> None:
        """Start a daemon again as it was started before; it must have ended."""
        assert self.process_of(part) is None, f"{part} still runs on {self.name}"
        record = json.loads(self._record(part).read_text())
        self.start_part(part, record["argv"], environment=record["environment"])

    def kill_part(self, part: str) -> None:
        """Kill a daemon and wait until it is gone; what it started goes on."""
        pid = self.process_of(part)
        assert pid is not None, f"{part} does not run on {self.name}"
        os.kill(pid, signal.SIGKILL)
        while self.process_of(part) is not None:
            time.sleep(0.01)

    def process_of(self, part: str) -> int | None:
        """Return the host's id of a part's program, or None when it does not run."""
        for pid in cgroups.processes(self.names.cgroup(self.name, part)):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/exe").readlink().name.split(" ")[0] == part:
                    return pid
        return None

    def log_tail(self, part: str, *, lines: int = 20) -> str:
        """Return the end of what a part printed."""
        path = self.names.log_path(self.name, part)
        text = path.read_text(errors="replace") if path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _record(self, part: str) -> Path:
        return self.directory / f"{part}.command.json"

    def _entry(self) -> list[str]:
        return ["nsenter", "--target", str(self.init_pid), *_NAMESPACES, "--"]

    def _start_detached(self, part: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        groups = [str(path) for path in cgroups.create_group(self.names.cgroup(self.name, part))]
        log = str(self.names.log_path(self.name, part))
        command = ["sh", "-c", _DETACH, _JOIN_AND_RUN, part, log, *groups, "--", *argv]
        limits = ProcessLimits(timeout_seconds=30)
        run(command, purpose=f"start {part} on {self.name}", limits=limits, environment={"PATH": self.search_path, **environment})

    def _await_init(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(ToolError, OSError):
                Path("/proc", str(self.init_pid), "root", "proc/1/stat").read_text()  # its own /proc is mounted
                return
            if time.monotonic() > deadline:
                raise ToolError(f"{self.name} has no first process:\n{self.log_tail(_INIT)}")
            time.sleep(0.01)

    @property
    def init_pid(self) -> int:
        """The first process, by its id on the host; unshare, its parent, is in the same group."""
        for pid in cgroups.processes(self.names.cgroup(self.name, _INIT)):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                (line,) = (line for line in status.splitlines() if line.startswith("NSpid:"))
                if len(line.split()) > 2 and line.split()[-1] == "1" and Path(f"/proc/{pid}/exe").readlink().name == "pause":
                    return pid
        raise ToolError(f"the machine {self.name} does not run")
