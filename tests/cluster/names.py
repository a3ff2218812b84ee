"""A run's name, and everything that follows from it: directories, addresses, cgroups, the link on the host."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from imagekit.base.errors import UsageError

CLUSTERS = Path("/var/tmp/imagekit-cluster")  # short: sockets below it must fit into 107 bytes
DEFAULT_RUN = "dev"
CONTROL = "control"
NODES = ("node1", "node2")
OWNER_FILE = "owner"  # in a state directory: the process with which the cluster is to go
API_PORT = 6443
REGISTRY_PORT = 5000
FIRST_SUBNET, LAST_SUBNET = 64, 127

_RUN = re.compile(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?")


def parse_run(text: str) -> str:
    """Return a run's name, or raise UsageError when it would not fit into names made of it."""
    if not _RUN.fullmatch(text):
        raise UsageError(f"{text!r} is no name for a run: 1 to 20 of a-z, 0-9 and -, not at the ends")
    return text


def state_directory(run: str) -> Path:
    """Return where everything of this run is kept."""
    return CLUSTERS / run


def cgroup_name(run: str) -> str:
    """Return the run's directory in each cgroup hierarchy."""
    return f"imagekit-{run}"


def link_name(run: str) -> str:
    """Return the name of the run's only network link on the host (at most 15 characters)."""
    return f"ik-{hashlib.sha256(run.encode()).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """One cluster's names; ``subnet`` makes its addresses 10.SUBNET.0.0/16."""

    run: str
    subnet: int

    @property
    def directory(self) -> Path:
        return state_directory(self.run)

    @property
    def binaries(self) -> Path:
        """The programs, at a path that every machine sees, wherever the cache is."""
        return self.directory / "bin"

    @property
    def certificates(self) -> Path:
        return self.directory / "pki"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def machines(self) -> IPv4Network:
        return IPv4Network(f"10.{self.subnet}.0.0/24")

    @property
    def host_address(self) -> IPv4Address:
        return self.machines[1]

    @property
    def control_address(self) -> IPv4Address:
        return self.machines[2]

    @property
    def pods(self) -> IPv4Network:
        return IPv4Network(f"10.{self.subnet}.64.0/18")

    @property
    def services(self) -> IPv4Network:
        return IPv4Network(f"10.{self.subnet}.128.0/18")

    @property
    def api_url(self) -> str:
        return f"https://{self.control_address}:{API_PORT}"

    @property
    def registry(self) -> str:
        """The host and port of the cluster's registry, the same from the host, the nodes and the pods."""
        return f"{self.control_address}:{REGISTRY_PORT}"

    def node_address(self, node: str) -> IPv4Address:
        return self.machines[11 + NODES.index(node)]

    def node_pods(self, node: str) -> IPv4Network:
        """Return the addresses of the pods on ``node``."""
        return list(self.pods.subnets(new_prefix=24))[1 + NODES.index(node)]

    def machine_directory(self, machine: str) -> Path:
        return self.directory / machine

    def log_path(self, machine: str, part: str) -> Path:
        return self.machine_directory(machine) / "logs" / f"{part}.log"

    def cgroup(self, machine: str = "", part: str = "") -> str:
        """Return a cgroup below each hierarchy's root: the cluster's, a machine's, or that of one part on it."""
        return "/".join(filter(None, (cgroup_name(self.run), machine, part)))
