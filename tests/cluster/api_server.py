"""etcd and an API server on loopback: real Kubernetes objects in seconds, without root, nodes or controllers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from imagekit.base.process import daemon
from tests.cluster import binaries, control_plane
from tests.cluster.api import ClusterApi
from tests.cluster.control_plane import ControlPlane
from tests.cluster.credentials import create_credentials, write_kubeconfig
from tests.cluster.kubectl import Kubectl
from tests.support.services import free_port, wait_until

_LOOPBACK = IPv4Address("127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningApiServer:
    """An API server; ``kubeconfig`` is an administrator's."""

    url: str
    kubeconfig: Path
    kubectl: Kubectl
    plane: ControlPlane


@contextlib.contextmanager
def running_api_server(root: Path) -> Iterator[RunningApiServer]:
    """Run etcd and an API server with their files under ``root``."""
    programs = binaries.build_binaries(root / "bin", binaries.API_MODULES)
    plane = _prepare(root)
    server = [*control_plane.api_server(programs, plane), "--endpoint-reconciler-type=none"]  # loopback can be no endpoint
    with (
        daemon(control_plane.etcd(programs, plane), purpose="run etcd", log_path=root / "etcd.log"),
        daemon(server, purpose="serve the Kubernetes API", log_path=root / "api.log", grace_seconds=0.2) as service,
        contextlib.closing(ClusterApi(plane)) as api,
    ):
        wait_until(api.is_ready, service)
        kubectl = Kubectl(program=programs["kubectl"], kubeconfig=plane.kubeconfig)
        yield RunningApiServer(url=f"https://{_LOOPBACK}:{plane.port}", kubeconfig=plane.kubeconfig, kubectl=kubectl, plane=plane)


def _prepare(root: Path) -> ControlPlane:
    credentials = create_credentials(root / "pki", api_addresses=[_LOOPBACK])
    port = free_port()
    authority = credentials.cluster.certificate_path
    kubeconfig = write_kubeconfig(
        root / "kubeconfig", server=f"https://{_LOOPBACK}:{port}", authority=authority, client=credentials.admin
    )
    plane = ControlPlane(
        directory=root / "control",
        credentials=credentials,
        kubeconfig=kubeconfig,
        address=_LOOPBACK,
        port=port,
        etcd_ports=(free_port(), free_port()),
        pods=IPv4Network("10.0.0.0/24"),
        services=IPv4Network("10.0.1.0/24"),
    )
    plane.prepare()
    return plane
