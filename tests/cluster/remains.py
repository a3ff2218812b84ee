"""Taking a cluster away, whole or in whatever state it was left: killed, half made, half removed."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from imagekit.base.errors import UsageError
from imagekit.base.process import ProcessLimits, run
from tests.cluster import cgroups
from tests.cluster.locks import locked
from tests.cluster.names import CLUSTERS, OWNER_FILE, cgroup_name, state_directory
from tests.cluster.network import remove_host_link
from tests.cluster.storage import detach_devices


def remove_orphans() -> list[str]:
    """Remove the clusters of test runs that were killed, and return their names."""
    removed = []
    for path in sorted(CLUSTERS.glob(f"*/{OWNER_FILE}")):
        run_name = path.parent.name
        with contextlib.suppress(UsageError), locked(run_name):  # a lock that is held: somebody does this already
            if not is_alive(path.read_text()):
                remove_cluster(run_name)
                removed.append(run_name)
    return removed


def identify(pid: int) -> str:
    """Return a process's identity: its id alone is given away again."""
    return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"


def is_alive(identity: str) -> bool:
    """Return whether the process still runs that ``identify`` told."""
    try:
        return identify(int(identity.split()[0])) == identity
    except (OSError, IndexError, ValueError):
        return False


def remove_cluster(run_name: str) -> bool:
    """Remove everything of a run, and return whether there was anything. The caller holds the lock."""
    directory, group = state_directory(run_name), cgroup_name(run_name)
    had_any = directory.exists() or bool(cgroups.processes(group))
    cgroups.end_processes(group)  # with their first processes the machines end, and all namespaces with them
    cgroups.remove_group(group)
    remove_host_link(run_name)
    detach_devices(directory)
    _unmount_below(directory)
    if directory.exists():
        shutil.rmtree(directory)
    return had_any


def _unmount_below(directory: Path) -> None:
    """Unmount what is mounted on the host below ``directory``: nothing, unless somebody entered a machine and left mounts."""
    limits = ProcessLimits(timeout_seconds=30)
    mounted = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for path in reversed([path for path in mounted if path.is_relative_to(directory)]):
        run(["umount", "--lazy", str(path)], purpose=f"unmount {path}", limits=limits)
