"""What can be seen of a cluster on the host: to prove that nothing of it stays."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from imagekit.base.process import ProcessLimits, run
from tests.cluster import cgroups
from tests.cluster.names import CLUSTERS, cgroup_name, link_name, state_directory

_LIMITS = ProcessLimits(timeout_seconds=30)
_TABLES = ("kube", "cni")  # of packet filters, as kube-proxy and the network's plugins name them


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """Everything of one cluster on this machine, as lines that name it."""

    processes: list[str]
    mounts: list[str]
    links: list[str]
    routes: list[str]
    tables: list[str]
    devices: list[str]
    groups: list[str]
    files: list[str]

    def told(self) -> str:
        """Return what there is, empty when there is nothing."""
        return "\n".join(f"{kind.name}: {line}" for kind in fields(self) for line in getattr(self, kind.name))


def traces(run_name: str) -> Traces:
    """Look for everything of a run; its processes are known by their control group, or by where their program is."""
    link, directory = link_name(run_name), str(state_directory(run_name))
    return Traces(
        processes=_processes(run_name),
        mounts=[line for line in Path("/proc/self/mountinfo").read_text().splitlines() if directory in line],
        links=[str(entry) for entry in _list("ip", "-json", "link", "show") if entry["ifname"] == link],
        routes=[str(route) for route in _list("ip", "-json", "route", "show", "table", "all") if route.get("dev") == link],
        tables=[line for line in _printed("nft", "list", "tables").splitlines() if any(word in line for word in _TABLES)],
        devices=[line for line in _printed("losetup", "--list", "--noheadings").splitlines() if directory in line],
        groups=[str(path) for hierarchy in cgroups.hierarchies() for path in hierarchy.glob(cgroup_name(run_name))],
        files=[str(path) for path in CLUSTERS.glob("*") if run_name in path.name],
    )


def _processes(run_name: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            groups, words = (path / "cgroup").read_text(), (path / "cmdline").read_text(errors="replace")
            is_ours = f"/{cgroup_name(run_name)}" in groups or words.startswith(f"{state_directory(run_name)}/")
            if is_ours and not cgroups.is_dead(int(path.name)):  # the host's first process buries the dead when it likes
                found.append(f"{path.name} {words[:100]!r}")
    return found


def _printed(*command: str) -> str:
    return run(command, purpose="look at the machine", limits=_LIMITS).stdout.decode()


def _list(*command: str) -> list[dict[str, Any]]:
    listed = json.loads(_printed(*command))
    assert isinstance(listed, list)
    return listed
