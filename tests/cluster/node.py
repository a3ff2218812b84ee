"""A node: what is mounted on it, its kubelet and its kube-proxy."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import cgroups
from tests.cluster.binaries import Binaries
from tests.cluster.certificates import Authority, KeyPair
from tests.cluster.container_runtime import SOCKET
from tests.cluster.credentials import write_kubeconfig
from tests.cluster.dns import DOMAIN
from tests.cluster.machine import Machine

SHARED_VOLUMES = "/var/lib/imagekit-shared"  # one directory, on every node
LOCAL_VOLUMES = "/var/lib/imagekit-local"  # one for each node
_OWN = {"lib": "/var/lib", "log": "/var/log", "run": "/run"}


def mount_own_directories(node: Machine, *, shared: Path) -> None:
    """Give the node its own /var/lib, /var/log and /run, and the cluster's shared directory.

    Mounts made on the node are seen by its pods where a volume asks for that, and never by the host.
    """
    node.run(["mount", "--make-rshared", "/"], purpose="share its mounts with its pods")
    for name, target in _OWN.items():
        own = node.directory / name
        own.mkdir(parents=True, exist_ok=True)
        node.run(["mount", "--bind", str(own), target], purpose=f"mount its {target}")
    for path in (SHARED_VOLUMES, LOCAL_VOLUMES, "/var/lib/kubelet"):
        (node.directory / "lib" / Path(path).name).mkdir()
    node.run(["mount", "--bind", str(shared), SHARED_VOLUMES], purpose="mount the shared volumes")
    node.run(["mount", "--bind", "/var/lib/kubelet", "/var/lib/kubelet"], purpose="make the kubelet's directory a mount")
    node.run(["mount", "--make-rshared", "/"], purpose="share its mounts with its pods")


def kubelet(node: Machine, binaries: Binaries, authority: Authority) -> list[str]:
    """Write what the kubelet reads, and return its command line."""
    name, address = node.name, node.names.node_address(node.name)
    client = authority.issue(f"{name}-kubelet", user=f"system:node:{name}", groups=["system:nodes"])
    server = authority.issue(f"{name}-kubelet-server", user=f"system:node:{name}", addresses=[address], hosts=[name])
    kubeconfig = node.directory / "kubelet.kubeconfig"
    write_kubeconfig(kubeconfig, server=node.names.api_url, authority=authority.certificate_path, client=client)
    configuration = node.directory / "kubelet.json"
    configuration.write_text(json.dumps(_kubelet_configuration(node, authority, server), indent=2))
    # The parent of every pod's group: the kubelets of two nodes would otherwise end each other's pods.
    cgroups.create_group(node.names.cgroup(name, "pods"))
    return [
        binaries["kubelet"],
        *(f"--kubeconfig={kubeconfig}", f"--config={configuration}"),
        *(f"--hostname-override={name}", f"--node-ip={address}"),
        f"--node-labels=topology.kubernetes.io/zone={name}",
    ]


def _kubelet_configuration(node: Machine, authority: Authority, server: KeyPair) -> dict[str, object]:
    resolver = node.directory / "resolv.conf"
    resolver.write_text("")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.certificate_path)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(server.certificate),
        "tlsPrivateKeyFile": str(server.key),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/" + node.names.cgroup(node.name, "pods"),
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "resolvConf": str(resolver),
        "clusterDNS": [str(node.names.control_address)],
        "clusterDomain": DOMAIN,
        "serializeImagePulls": False,
        "nodeStatusUpdateFrequency": "4s",
        # A developer's disk may be nearly full; a test cluster evicts nothing because of that.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def kube_proxy(node: Machine, binaries: Binaries, authority: Authority) -> list[str]:
    """Write what kube-proxy reads, and return its command line."""
    client = authority.issue(f"{node.name}-kube-proxy", user="system:kube-proxy")
    kubeconfig = node.directory / "kube-proxy.kubeconfig"
    write_kubeconfig(kubeconfig, server=node.names.api_url, authority=authority.certificate_path, client=client)
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": str(node.names.pods),
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        # The host's own settings, not a network namespace's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    path = node.directory / "kube-proxy.json"
    path.write_text(json.dumps(configuration, indent=2))
    return [binaries["kube-proxy"], f"--config={path}"]
