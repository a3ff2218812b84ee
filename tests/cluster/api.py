"""What bringing a cluster up asks of its API server; tests use real clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import requests

from tests.cluster.control_plane import ControlPlane

_TIMEOUT_SECONDS = 10.0


class ClusterApi:
    """An administrator's connection."""

    def __init__(self, plane: ControlPlane) -> None:
        self._url = f"https://{plane.address}:{plane.port}"
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the developer's does not lead here
        self._session.verify = str(plane.credentials.cluster.certificate_path)
        self._session.cert = (str(plane.credentials.admin.certificate), str(plane.credentials.admin.key))

    def close(self) -> None:
        self._session.close()

    def is_ready(self) -> bool:
        """Return whether the API server says that it is ready."""
        try:
            return self._session.get(f"{self._url}/readyz", timeout=_TIMEOUT_SECONDS).status_code == 200
        except requests.RequestException:
            return False

    def read(self, path: str) -> dict[str, Any]:
        """Return the document at ``path``."""
        answer = self._session.get(f"{self._url}{path}", timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
        document = answer.json()
        assert isinstance(document, dict)
        return document

    def apply(self, collection: str, document: Mapping[str, Any]) -> None:
        """Create or change an object of ``collection``, by server-side apply."""
        url = f"{self._url}{collection}/{document['metadata']['name']}?fieldManager=cluster&force=true"
        headers = {"Content-Type": "application/apply-patch+yaml"}
        answer = self._session.patch(url, data=json.dumps(document), headers=headers, timeout=_TIMEOUT_SECONDS)
        assert answer.ok, f"cannot apply {url}: {answer.status_code} {answer.text}"

    def ready_nodes(self) -> set[str]:
        """Return the names of the nodes that are ready."""
        ready = set()
        for node in self.read("/api/v1/nodes")["items"]:
            conditions = {condition["type"]: condition["status"] for condition in node["status"].get("conditions", [])}
            if conditions.get("Ready") == "True":
                ready.add(node["metadata"]["name"])
        return ready

    def has_default_account(self) -> bool:
        """Return whether pods can be created: they need their namespace's service account."""
        accounts = self.read("/api/v1/namespaces/default/serviceaccounts")["items"]
        return "default" in {account["metadata"]["name"] for account in accounts}
