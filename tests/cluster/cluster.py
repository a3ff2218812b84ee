"""A cluster as it is on this machine: its names, its machines, the daemons on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from imagekit.base.errors import UsageError
from tests.cluster import cgroups, storage
from tests.cluster.binaries import Binaries
from tests.cluster.machine import Machine
from tests.cluster.names import CONTROL, NODES, OWNER_FILE, Names, state_directory

CONTROL_PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "registry", "coredns", storage.PROVISIONER)
NODE_PARTS = ("containerd", "kubelet", "kube-proxy")
_NAMES_FILE = "names.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """One cluster; its machines may or may not run."""

    names: Names
    binaries: Binaries
    machines: dict[str, Machine]

    @classmethod
    def of(cls, names: Names) -> Cluster:
        binaries = Binaries(directory=names.binaries)
        machines = {name: Machine(names=names, name=name, search_path=binaries.search_path) for name in (CONTROL, *NODES)}
        return cls(names=names, binaries=binaries, machines=machines)

    @classmethod
    def load(cls, run_name: str) -> Cluster:
        """Return the cluster of a run, or raise UsageError when there is none."""
        try:
            record = json.loads((state_directory(run_name) / _NAMES_FILE).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            raise UsageError(f"there is no cluster {run_name!r}", hint="start one with `./dev cluster up`") from None
        return cls.of(Names(run=run_name, subnet=record["subnet"]))

    def save(self, *, owner: str) -> None:
        """Write down what ``load`` needs, and the process with which the cluster is to go, if any."""
        self.names.directory.mkdir(mode=0o755)
        if owner:
            (self.names.directory / OWNER_FILE).write_text(owner)
        scratch = self.names.directory / f".{_NAMES_FILE}"
        scratch.write_text(json.dumps({"subnet": self.names.subnet}))
        scratch.rename(self.names.directory / _NAMES_FILE)

    @property
    def control(self) -> Machine:
        return self.machines[CONTROL]

    @property
    def nodes(self) -> list[Machine]:
        return [self.machines[name] for name in NODES]

    def parts(self) -> Iterator[tuple[Machine, str]]:
        """Yield every daemon, with the machine that it belongs to."""
        for part in CONTROL_PARTS:
            yield self.control, part
        for node in self.nodes:
            for part in NODE_PARTS:
                yield node, part

    def ended_parts(self) -> list[str]:
        """Return the daemons that do not run, as MACHINE/PART."""
        return [f"{machine.name}/{part}" for machine, part in self.parts() if machine.process_of(part) is None]

    def memory_bytes(self) -> int:
        """Return the memory that all of its processes use, pods included."""
        return cgroups.memory_bytes(self.names.cgroup())
