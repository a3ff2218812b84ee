"""Starting a cluster: the order of its parts, and what is waited for. Everything that can start together does."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

from imagekit.base.errors import ToolError
from imagekit.base.process import find_program
from tests.cluster import container_runtime, control_plane, dns, images, node, registry, storage
from tests.cluster.api import ClusterApi
from tests.cluster.binaries import build_binaries
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.credentials import create_credentials, write_kubeconfig
from tests.cluster.locks import all_locked
from tests.cluster.machine import Machine
from tests.cluster.names import API_PORT, CLUSTERS, NODES, Names
from tests.cluster.network import connect_control, connect_node, free_subnet
from tests.cluster.remains import identify

_READY_SECONDS = 120.0
_POLL_SECONDS = 0.1


def say(message: str) -> None:
    """Tell the developer what happens, on standard error."""
    print(f"==> {message}", file=sys.stderr, flush=True)


def start_cluster(run_name: str, *, owner: int | None = None) -> Cluster:
    """Start a cluster whose name is free, and return it when both nodes are ready; it is to go when the process ``owner`` ends.

    What was started when this fails is left for ``remove_cluster``, which needs nothing but the name.
    """
    cluster = _claim(run_name, owner=owner)
    build_binaries(cluster.names.binaries)
    say(f"starting the machines control, {', '.join(NODES)} on 10.{cluster.names.subnet}.0.0/16")
    plane = _prepare(cluster)
    _start_machines(cluster)
    cluster.control.start_part("etcd", control_plane.etcd(cluster.binaries, plane))
    cluster.control.start_part("kube-apiserver", control_plane.api_server(cluster.binaries, plane))
    cluster.control.start_part("registry", registry.command(cluster.control, cluster.binaries))
    for machine in cluster.nodes:
        configuration = container_runtime.write_configuration(machine, cluster.binaries)
        machine.start_part("containerd", container_runtime.command(cluster.binaries, configuration))
    with closing(ClusterApi(plane)) as api:
        _wait_for("the API server", api.is_ready, (cluster.control, "etcd"), (cluster.control, "kube-apiserver"))
        _start_rest(cluster, plane, api)
    return cluster


def _claim(run_name: str, *, owner: int | None) -> Cluster:
    """Take addresses that nobody uses, and write them down before another command looks."""
    with all_locked():
        taken = {json.loads(path.read_text())["subnet"] for path in CLUSTERS.glob("*/names.json")}
        preferred = int.from_bytes(hashlib.sha256(run_name.encode()).digest()[:2])
        cluster = Cluster.of(Names(run=run_name, subnet=free_subnet(taken, preferred=preferred)))
        cluster.save(owner=identify(owner) if owner else "")
    return cluster


def _prepare(cluster: Cluster) -> ControlPlane:
    names = cluster.names
    addresses = [names.control_address, names.services[1]]
    credentials = create_credentials(names.certificates, api_addresses=addresses)
    authority = credentials.cluster.certificate_path
    write_kubeconfig(names.kubeconfig, server=names.api_url, authority=authority, client=credentials.admin)
    if developer := os.environ.get("SUDO_UID"):
        os.chown(names.kubeconfig, int(developer), -1)
    plane = ControlPlane(
        directory=names.machine_directory(cluster.control.name),
        credentials=credentials,
        kubeconfig=names.kubeconfig,
        address=names.control_address,
        port=API_PORT,
        etcd_ports=(2379, 2380),
        pods=names.pods,
        services=names.services,
    )
    plane.prepare()
    images.write_pause_image(names.directory / "pause.tar", names.binaries / "pause")
    busybox = find_program("busybox")
    assert busybox is not None, "the program busybox (Debian: busybox-static) is not installed"
    images.write_shell_image(names.directory / "shell.tar", busybox)
    return plane


def _start_machines(cluster: Cluster) -> None:
    shared = cluster.names.directory / "shared"
    shared.mkdir()
    cluster.control.start(cluster.binaries["pause"])
    connect_control(cluster.control)
    for machine in cluster.nodes:
        machine.start(cluster.binaries["pause"])
        connect_node(machine, cluster.control)
        node.mount_own_directories(machine, shared=shared)


def _start_rest(cluster: Cluster, plane: ControlPlane, api: ClusterApi) -> None:
    authority, binaries, control = plane.credentials.cluster, cluster.binaries, cluster.control
    control.start_part("kube-controller-manager", control_plane.controller_manager(binaries, plane))
    control.start_part("kube-scheduler", control_plane.scheduler(binaries, plane))
    for machine in cluster.nodes:
        _wait_for(f"containerd on {machine.name}", partial(container_runtime.is_ready, machine), (machine, "containerd"))
        for archive in ("pause.tar", "shell.tar"):
            container_runtime.import_image(machine, binaries, cluster.names.directory / archive)
        machine.start_part("kubelet", node.kubelet(machine, binaries, authority))
        machine.start_part("kube-proxy", node.kube_proxy(machine, binaries, authority))
    control.start_part("coredns", dns.command(control, binaries, plane.kubeconfig))
    storage.apply_storage(api, cluster.names)
    control.start_part(storage.PROVISIONER, storage.provisioner(control, binaries, plane.kubeconfig))
    kubelets = [(machine, "kubelet") for machine in cluster.nodes]
    _wait_for("both nodes", lambda: api.ready_nodes() == set(NODES), *kubelets)
    _wait_for("the default service account", api.has_default_account, (control, "kube-controller-manager"))
    _wait_for("every part", lambda: not cluster.ended_parts(), *cluster.parts())


def _wait_for(what: str, is_ready: Callable[[], bool], *parts: tuple[Machine, str]) -> None:
    """Wait until something is ready; the end of a part that it needs, or too long a time, is an error with its log's end."""
    say(f"waiting for {what}")
    started = time.monotonic()
    while not is_ready():
        time.sleep(_POLL_SECONDS)
        waited = time.monotonic() - started
        ended = [(machine, part) for machine, part in parts if waited > 1 and machine.process_of(part) is None]
        if ended or waited > _READY_SECONDS:
            verdict = "ended" if ended else f"is not ready after {_READY_SECONDS:.0f} s"
            logs = [f"{machine.name}/{part} {verdict}:\n{machine.log_tail(part)}" for machine, part in ended or parts]
            raise ToolError(f"cannot start {what}\n" + "\n".join(logs))
