"""Who may speak to whom in a cluster: every certificate that its parts need, and their kubeconfig files."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from tests.cluster.certificates import Authority, KeyPair, create_signing_key

_MASTERS = "system:masters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The control plane's keys; nodes get theirs from ``cluster``."""

    cluster: Authority
    front_proxy: Authority
    api_server: KeyPair
    kubelet_client: KeyPair
    proxy_client: KeyPair
    service_accounts: KeyPair
    admin: KeyPair


def create_credentials(directory: Path, *, api_addresses: list[IPv4Address]) -> Credentials:
    """Make all keys of a control plane that answers on ``api_addresses``."""
    cluster = Authority.create(directory, "cluster-ca")
    front_proxy = Authority.create(directory, "front-proxy-ca")
    service_names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ]
    return Credentials(
        cluster=cluster,
        front_proxy=front_proxy,
        api_server=cluster.issue("kube-apiserver", user="kube-apiserver", addresses=api_addresses, hosts=service_names),
        kubelet_client=cluster.issue("kubelet-client", user="kube-apiserver-kubelet-client", groups=[_MASTERS]),
        proxy_client=front_proxy.issue("front-proxy-client", user="front-proxy-client"),
        service_accounts=create_signing_key(directory, "service-accounts"),
        admin=cluster.issue("admin", user="kubernetes-admin", groups=[_MASTERS]),
    )


def write_kubeconfig(path: Path, *, server: str, authority: Path, client: KeyPair) -> Path:
    """Write a kubeconfig file (JSON is YAML) that needs no other file and that only its owner may read; returns the path."""

    def embedded(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": embedded(authority)}
    user = {"client-certificate-data": embedded(client.certificate), "client-key-data": embedded(client.key)}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "cluster",
        "clusters": [{"name": "cluster", "cluster": cluster}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": "user"}}],
    }
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(document, file, indent=2)
    return path
