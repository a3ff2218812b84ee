"""The command lines of etcd and of Kubernetes' control plane: pure functions, for the cluster and for quick tests alike."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.cluster.binaries import Binaries
from tests.cluster.credentials import Credentials

_AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  resources:
  - {group: coordination.k8s.io, resources: [leases]}
- level: None
  nonResourceURLs: ["/healthz*", "/livez*", "/readyz*", "/version"]
- level: Metadata
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Where a control plane answers and keeps its files; ``kubeconfig`` is an administrator's."""

    directory: Path
    credentials: Credentials
    kubeconfig: Path
    address: IPv4Address
    port: int
    etcd_ports: tuple[int, int]
    pods: IPv4Network
    services: IPv4Network

    @property
    def audit_log(self) -> Path:
        return self.directory / "logs" / "audit.log"

    @property
    def audit_policy(self) -> Path:
        return self.directory / "audit-policy.yaml"

    def prepare(self) -> None:
        """Write the files that the command lines name."""
        self.audit_log.parent.mkdir(parents=True, exist_ok=True)
        self.audit_policy.write_text(_AUDIT_POLICY)


def etcd(binaries: Binaries, plane: ControlPlane) -> list[str]:
    """Serve on loopback; nothing is synced to disk, for a test cluster's data dies with it."""
    client, peer = (f"http://127.0.0.1:{port}" for port in plane.etcd_ports)
    return [
        binaries["etcd"],
        f"--data-dir={plane.directory}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--snapshot-count=100000",
        "--log-level=warn",
    ]


def api_server(binaries: Binaries, plane: ControlPlane) -> list[str]:
    """Serve the API with the aggregation layer, admission webhooks and an audit log."""
    credentials = plane.credentials
    return [
        binaries["kube-apiserver"],
        *(f"--bind-address={plane.address}", f"--advertise-address={plane.address}", f"--secure-port={plane.port}"),
        f"--etcd-servers=http://127.0.0.1:{plane.etcd_ports[0]}",
        f"--service-cluster-ip-range={plane.services}",
        f"--client-ca-file={credentials.cluster.certificate_path}",
        f"--tls-cert-file={credentials.api_server.certificate}",
        f"--tls-private-key-file={credentials.api_server.key}",
        f"--cert-dir={plane.directory}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        *_kubelet_access(credentials),
        *_service_accounts(credentials),
        *_aggregation(credentials),
        *(f"--audit-log-path={plane.audit_log}", f"--audit-policy-file={plane.audit_policy}"),
        *("--audit-log-maxsize=100", "--audit-log-maxbackup=1", "--audit-log-mode=batch"),
    ]


def _kubelet_access(credentials: Credentials) -> list[str]:
    return [
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={credentials.cluster.certificate_path}",
        f"--kubelet-client-certificate={credentials.kubelet_client.certificate}",
        f"--kubelet-client-key={credentials.kubelet_client.key}",
    ]


def _service_accounts(credentials: Credentials) -> list[str]:
    return [
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={credentials.service_accounts.certificate}",
        f"--service-account-signing-key-file={credentials.service_accounts.key}",
    ]


def _aggregation(credentials: Credentials) -> list[str]:
    return [
        f"--requestheader-client-ca-file={credentials.front_proxy.certificate_path}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={credentials.proxy_client.certificate}",
        f"--proxy-client-key-file={credentials.proxy_client.key}",
        "--enable-aggregator-routing=true",  # webhooks and APIServices are reached at pod addresses; no kube-proxy runs here
    ]


def controller_manager(binaries: Binaries, plane: ControlPlane) -> list[str]:
    """Run Kubernetes' controllers, alone and hence without a leader's lease."""
    credentials = plane.credentials
    return [
        binaries["kube-controller-manager"],
        *(f"--kubeconfig={plane.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1", f"--cert-dir={plane.directory}"),
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={credentials.service_accounts.key}",
        f"--root-ca-file={credentials.cluster.certificate_path}",
        f"--cluster-cidr={plane.pods}",
        "--node-monitor-grace-period=16s",
    ]


def scheduler(binaries: Binaries, plane: ControlPlane) -> list[str]:
    """Run the scheduler, alone and hence without a leader's lease."""
    return [
        binaries["kube-scheduler"],
        *(f"--kubeconfig={plane.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1", f"--cert-dir={plane.directory}"),
    ]
