"""etcd and an API server alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.api_server import RunningApiServer

pytestmark = [pytest.mark.process, pytest.mark.network]


def test_objects_are_kept(api_server: RunningApiServer, tmp_path: Path) -> None:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"key": "value"}}
    api_server.kubectl.apply(document, scratch=tmp_path)
    assert api_server.kubectl.get("configmap", "kept")["data"] == {"key": "value"}
    assert api_server.kubectl("auth", "whoami", "--output=jsonpath={.status.userInfo.username}") == "kubernetes-admin"


def test_aggregation_layer_and_webhooks_are_on(api_server: RunningApiServer) -> None:
    served = api_server.kubectl("api-resources", "--output=name")
    for resource in ("apiservices.apiregistration.k8s.io", "validatingwebhookconfigurations.admissionregistration.k8s.io"):
        assert resource in served
    trusted = api_server.kubectl.get("configmap", "extension-apiserver-authentication", "--namespace=kube-system")["data"]
    assert "BEGIN CERTIFICATE" in trusted["requestheader-client-ca-file"]
