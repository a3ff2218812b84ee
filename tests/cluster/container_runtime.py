"""containerd on a node: its configuration, the pod network's, and images that need no registry."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

from tests.cluster.binaries import Binaries
from tests.cluster.images import PAUSE
from tests.cluster.machine import Machine

SOCKET = "/run/containerd/containerd.sock"  # /run is each node's own
_DATA = "/var/lib/containerd"  # and so is /var/lib


def write_configuration(node: Machine, binaries: Binaries) -> Path:
    """Write everything that containerd reads on ``node``; returns the path of its configuration."""
    directory = node.directory / "containerd"
    _write_network(node, directory / "cni")
    hosts = directory / "certs.d" / node.names.registry / "hosts.toml"
    hosts.parent.mkdir(parents=True)
    hosts.write_text(
        f'server = "http://{node.names.registry}"\n\n[host."http://{node.names.registry}"]\n  capabilities = ["pull", "resolve"]\n'
    )
    path = directory / "config.toml"
    path.write_text(_configuration(binaries, directory))
    return path


def _configuration(binaries: Binaries, directory: Path) -> str:
    return f"""\
version = 3
root = "{_DATA}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "{directory}/certs.d"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true  # raising one's own needs CAP_SYS_RESOURCE, which a container of the developer's may lack

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{binaries.directory}"]
  conf_dir = "{directory}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "{binaries["runc"]}"
  SystemdCgroup = false
"""


def _write_network(node: Machine, directory: Path) -> None:
    pods = node.names.node_pods(node.name)
    bridge = {
        "type": "bridge",
        "bridge": "pods0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(pods)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni",
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "nftables"}
    directory.mkdir(parents=True)
    document = {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}
    (directory / "10-pods.conflist").write_text(json.dumps(document, indent=2))


def command(binaries: Binaries, configuration: Path) -> list[str]:
    """Return containerd's command line."""
    return [binaries["containerd"], "--config", str(configuration), "--log-level", "info"]


def is_ready(node: Machine) -> bool:
    """Return whether containerd listens on ``node``; it answers from then on."""
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
        probe.connect(str(node.directory / SOCKET.removeprefix("/")))
        return True
    return False


def import_image(node: Machine, binaries: Binaries, archive: Path) -> None:
    """Put the images of an archive on ``node``."""
    ctr = [binaries["ctr"], "--address", SOCKET, "--namespace", "k8s.io", "images", "import", str(archive)]
    node.run(ctr, purpose=f"import {archive.name}", timeout_seconds=120)
