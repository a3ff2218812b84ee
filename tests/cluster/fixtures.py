"""Fixtures of real Kubernetes: a cluster for the session, a namespace for each test, and an API server alone."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

import pytest

from tests.cluster.api_server import RunningApiServer, running_api_server
from tests.cluster.binaries import go_program
from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.running import running_cluster
from tests.support.prerequisites import missing, require_root


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A two-node cluster for the session; the test needs the mark ``cluster``.

    ``IMAGEKIT_TEST_CLUSTER`` names one that stands already (``dev`` after `./dev cluster up`) and stays.
    """
    require_root()
    _require_go()
    if standing := os.environ.get("IMAGEKIT_TEST_CLUSTER"):
        return Cluster.load(standing)
    with contextlib.ExitStack() as stack:
        started = stack.enter_context(running_cluster(f"test-{os.getpid()}"))
        # Not at the fixture's own end: that comes within the last test, which may be one that starts no programs.
        request.config.add_cleanup(stack.pop_all().close)
        return started


@pytest.fixture
def kubectl(cluster: Cluster) -> Iterator[Kubectl]:
    """kubectl in a namespace of the test's own, which is deleted after it."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    administrator = Kubectl(program=cluster.binaries["kubectl"], kubeconfig=cluster.names.kubeconfig)
    administrator("create", "namespace", name)
    mine = Kubectl(program=administrator.program, kubeconfig=administrator.kubeconfig, namespace=name)
    try:
        mine.wait_for("namespace", name, lambda found: found["status"]["phase"] == "Active")
        yield mine
    finally:
        administrator("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApiServer]:
    """etcd and an API server on loopback, without nodes or controllers; the test needs ``process`` and ``network``."""
    _require_go()
    with running_api_server(tmp_path_factory.mktemp("api-server")) as running:
        yield running


def _require_go() -> None:
    if go_program() is None:
        missing("Go 1.21 or newer, which builds the cluster's programs")
