"""Control groups: what marks a process as a cluster's, counts its memory and finds it again after a crash.

Both versions are served: on version 1 a group is one directory in each hierarchy, on version 2 there is one hierarchy.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from imagekit.base.errors import ToolError

_END_SECONDS = 20.0


def hierarchies() -> list[Path]:
    """Return where the cgroup hierarchies are mounted, each once."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()[0]
        if kind in ("cgroup", "cgroup2") and fields[3] == "/":
            found.setdefault(fields[2], Path(fields[4]))
    return list(found.values())


def create_group(name: str) -> list[Path]:
    """Create ``name`` (a path below the root) in each hierarchy, and return its directories."""
    directories = []
    for hierarchy in hierarchies():
        directory = hierarchy
        for step in name.split("/"):
            _delegate(directory)
            directory = directory / step
            directory.mkdir(exist_ok=True)
            _inherit_cpus(directory)
        directories.append(directory)
    return directories


def _delegate(parent: Path) -> None:
    """Give a version 2 group's children its controllers; on version 1 there is nothing to give."""
    controllers = parent / "cgroup.controllers"
    if controllers.exists():
        for controller in controllers.read_text().split():
            with contextlib.suppress(OSError):  # not every controller can be given
                (parent / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpus(directory: Path) -> None:
    """Give a version 1 cpuset group its parent's processors and memory: it starts without, and nothing could join."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        own = directory / file
        if own.exists() and not own.read_text().strip() and not (directory / "cgroup.controllers").exists():
            own.write_text((directory.parent / file).read_text())


def processes(name: str) -> list[int]:
    """Return the processes in ``name`` and below it, in any hierarchy."""
    found: set[int] = set()
    for directory in _existing(name):
        for path in [directory, *_below(directory)]:
            with contextlib.suppress(OSError):
                found |= {int(line) for line in (path / "cgroup.procs").read_text().split()}
    return sorted(found - {0})


def end_processes(name: str) -> None:
    """Kill everything in ``name`` and wait until it is gone."""
    deadline = time.monotonic() + _END_SECONDS
    while left := [pid for pid in processes(name) if not is_dead(pid)]:
        if time.monotonic() > deadline:
            raise ToolError(f"these processes of {name} do not end: {left}")
        for pid in reversed(left):  # children before parents, which then bury them
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def remove_group(name: str) -> None:
    """Remove the group and those below it; a group that is not there is no error."""
    deadline = time.monotonic() + _END_SECONDS
    while directories := [path for top in _existing(name) for path in [*reversed(_below(top)), top]]:
        for directory in directories:
            with contextlib.suppress(OSError):  # busy for a moment after its last process ended
                directory.rmdir()
        if _existing(name):
            if time.monotonic() > deadline:
                raise ToolError(f"these control groups cannot be removed: {_existing(name)}")
            time.sleep(0.02)


def memory_bytes(name: str) -> int:
    """Return the memory that the group's processes use without what the kernel can drop: anonymous pages."""
    for directory in _existing(name):
        statistics = directory / "memory.stat"
        if statistics.exists():
            fields = dict(line.split() for line in statistics.read_text().splitlines())
            return int(fields.get("total_rss", fields.get("anon", 0)))
    return 0


def _existing(name: str) -> list[Path]:
    return [path for hierarchy in hierarchies() if (path := hierarchy / name).is_dir()]


def _below(directory: Path) -> list[Path]:
    """Return the groups below ``directory``, parents first; groups vanish while one looks."""
    return list(_walk(directory))


def _walk(directory: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        children = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for child in children:
            yield child
            yield from _walk(child)


def is_dead(pid: int) -> bool:
    """Tell whether a process ended; as long as its parent has not buried it, its group still names it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    return True
