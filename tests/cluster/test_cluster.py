"""Kubernetes as the cluster offers it: pods, the network between them, volumes, images."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagekit.base.progress import ProgressMode, open_progress
from registrydisk.access import RegistryAccess
from registrydisk.copy_run import Extent, copy_between
from registrydisk.reference import Location, Transport
from tests.cluster.cluster import Cluster
from tests.cluster.images import write_shell_image
from tests.cluster.kubectl import Kubectl, has_phase, is_ready
from tests.cluster.names import NODES
from tests.cluster.pods import claim, claimed, pod, service
from tests.support.prerequisites import require_program

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_SLEEP = "sleep 1000"


@pytest.fixture(scope="module")
def image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image in the cluster's registry, put there with our own tool."""
    archive = tmp_path_factory.mktemp("image") / "shell.tar"
    write_shell_image(archive, Path(require_program("busybox")), name="localhost/tests/shell:1")
    name = f"{cluster.names.registry}/tests/shell:1"
    copy_between(
        Location.parse(f"docker-archive:{archive}", default=Transport.DOCKER),
        Location.parse(name, default=Transport.DOCKER),
        extent=Extent.WHAT_FITS,
        platform=None,
        access=RegistryAccess(is_plain_http=True),
        progress=open_progress(ProgressMode.NONE),
    )
    return name


def test_pods_run_on_both_nodes(kubectl: Kubectl, image: str, tmp_path: Path) -> None:
    script = f"echo hello from $(hostname); {_SLEEP}"
    kubectl.apply(*(pod(name, script, image=image, node=name) for name in NODES), scratch=tmp_path)
    for name in NODES:
        found = kubectl.wait_for("pod", name, is_ready)
        assert found["spec"]["nodeName"] == name
        assert kubectl("logs", name) == f"hello from {name}\n"
        assert kubectl("exec", name, "--", "echo", "inside") == "inside\n"


def test_pods_reach_each_other_and_a_service(kubectl: Kubectl, cluster: Cluster, image: str, tmp_path: Path) -> None:
    serve = "mkdir /tmp/www; echo served >/tmp/www/index.html; httpd -f -p 8080 -h /tmp/www"
    kubectl.apply(
        pod("server", serve, image=image, node="node1"),
        pod("near", _SLEEP, image=image, node="node1"),
        pod("far", _SLEEP, image=image, node="node2"),
        service("server", port=8080),
        scratch=tmp_path,
    )
    ready = {name: kubectl.wait_for("pod", name, is_ready) for name in ("server", "near", "far")}
    pod_address = ready["server"]["status"]["podIP"]
    service_address = kubectl.get("service", "server")["spec"]["clusterIP"]
    for name in ("near", "far"):
        for address in (pod_address, service_address, "server"):
            assert _fetch(kubectl, name, address) == "served\n"
    wget = ["busybox", "wget", "-qO-", f"http://{service_address}:8080/"]
    assert cluster.control.run(wget, purpose="use the service from outside the nodes").stdout == b"served\n"


def _fetch(kubectl: Kubectl, name: str, address: str) -> str:
    """Fetch from within a pod; kube-proxy learns of a service a moment after we do."""
    attempts = f"for i in 1 2 3 4 5 6 7 8; do timeout 2 wget -qO- http://{address}:8080/ && exit; sleep 1; done; exit 1"
    return kubectl("exec", name, "--", "sh", "-c", attempts)


def test_claim_is_provisioned_and_taken_away(kubectl: Kubectl, image: str, tmp_path: Path) -> None:
    mounts = [{"name": "data", "mountPath": "/data"}]
    writer = pod("writer", "echo kept >/data/file && sync", image=image, mounts=mounts, volumes=[claimed("data")])
    kubectl.apply(claim("data", storage_class="local"), writer, scratch=tmp_path)
    kubectl.wait_for("pod", "writer", has_phase("Succeeded"))
    kubectl.apply(pod("reader", "cat /data/file", image=image, mounts=mounts, volumes=[claimed("data")]), scratch=tmp_path)
    kubectl.wait_for("pod", "reader", has_phase("Succeeded"))
    assert kubectl("logs", "reader") == "kept\n"
    volume = kubectl.get("pvc", "data")["spec"]["volumeName"]
    kubectl("delete", "pod/writer", "pod/reader", "pvc/data")
    kubectl("wait", f"pv/{volume}", "--for=delete", "--timeout=60s")


def test_shared_claim_is_seen_on_both_nodes(kubectl: Kubectl, image: str, tmp_path: Path) -> None:
    mounts, volumes = [{"name": "shared", "mountPath": "/data"}], [claimed("shared")]
    scripts = {"node1": "echo one >/data/node1; until cat /data/node2; do sleep 0.2; done", "node2": "echo two >/data/node2"}
    kubectl.apply(
        claim("shared", storage_class="shared", access="ReadWriteMany"),
        *(pod(name, script, image=image, node=name, mounts=mounts, volumes=volumes) for name, script in scripts.items()),
        scratch=tmp_path,
    )
    for node in scripts:
        kubectl.wait_for("pod", node, has_phase("Succeeded"))
    assert kubectl("logs", "node1").endswith("two\n")


@pytest.mark.parametrize(("storage_class", "access"), [("block", "ReadWriteOnce"), ("shared-block", "ReadWriteMany")])
def test_block_volume_is_a_device(kubectl: Kubectl, image: str, tmp_path: Path, storage_class: str, access: str) -> None:
    script = "echo written | dd of=/dev/disk conv=fsync && dd if=/dev/disk bs=8 count=1"
    devices = [{"name": "disk", "devicePath": "/dev/disk"}]
    kubectl.apply(
        claim("disk", storage_class=storage_class, mode="Block", access=access),
        pod("writer", script, image=image, devices=devices, volumes=[claimed("disk")]),
        scratch=tmp_path,
    )
    kubectl.wait_for("pod", "writer", has_phase("Succeeded"))
    assert "written\n" in kubectl("logs", "writer")


def test_image_volume_is_mounted(kubectl: Kubectl, image: str, tmp_path: Path) -> None:
    volume = {"name": "content", "image": {"reference": image, "pullPolicy": "IfNotPresent"}}
    mounts = [{"name": "content", "mountPath": "/content"}]
    kubectl.apply(pod("reader", "ls /content/bin/busybox", image=image, mounts=mounts, volumes=[volume]), scratch=tmp_path)
    kubectl.wait_for("pod", "reader", has_phase("Succeeded"))
    assert kubectl("logs", "reader") == "/content/bin/busybox\n"


def test_wait_tells_conditions_and_events(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl.apply(pod("absent", "true", image="localhost/never/there:1"), scratch=tmp_path)
    kubectl.wait_for("pod", "absent", lambda found: "containerStatuses" in found["status"])
    with pytest.raises(AssertionError, match=r"(?s)pod absent is not as awaited after 2 s.*ContainersNotReady.*Pulling"):
        kubectl.wait_for("pod", "absent", is_ready, timeout_seconds=2)


def test_api_calls_are_audited(kubectl: Kubectl, cluster: Cluster) -> None:
    assert f'"namespace":"{kubectl.namespace}"' in cluster.names.log_path("control", "audit").read_text()
