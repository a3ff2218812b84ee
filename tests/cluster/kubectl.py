"""kubectl, as a test uses it: documents in, documents out, and failures that say what the object's state was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagekit.base.process import ProcessLimits, run
from imagekit.base.units import MIB

_TIMEOUT_SECONDS = 60.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """kubectl with an administrator's rights in one namespace."""

    program: str
    kubeconfig: Path
    namespace: str = "default"

    def __call__(self, *arguments: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> str:
        """Run kubectl, and return what it printed."""
        cache = self.kubeconfig.with_name("kubectl-cache")  # not in a home, or where the tests run
        options = [f"--kubeconfig={self.kubeconfig}", f"--cache-dir={cache}", f"--namespace={self.namespace}"]
        command = [self.program, *options, *arguments]
        limits = ProcessLimits(timeout_seconds=timeout_seconds, output_bytes=64 * MIB)
        return run(command, purpose=f"kubectl {arguments[0]}", limits=limits).stdout.decode()

    def apply(self, *documents: Mapping[str, Any], scratch: Path) -> None:
        """Create or change objects; ``scratch`` is a directory for the file that kubectl reads."""
        path = scratch / "applied.json"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)}))
        self("apply", "--server-side", "--filename", str(path))

    def get(self, *what: str) -> dict[str, Any]:
        """Return an object or a list: ``get("pod", "a")``."""
        document = json.loads(self("get", *what, "--output=json"))
        assert isinstance(document, dict)
        return document

    def wait_for(
        self, kind: str, name: str, is_done: Callable[[dict[str, Any]], bool], *, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> dict[str, Any]:
        """Wait until ``is_done`` is true of an object and return it; too late, fail with its conditions and events."""
        deadline = time.monotonic() + timeout_seconds
        while not (found := self._find(kind, name)) or not is_done(found):
            if time.monotonic() > deadline:
                raise AssertionError(f"{kind} {name} is not as awaited after {timeout_seconds:.0f} s\n{self._told(found)}")
            time.sleep(_POLL_SECONDS)
        return found

    def _find(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object, empty when there is none."""
        printed = self("get", kind, name, "--ignore-not-found", "--output=json")
        document = json.loads(printed or "{}")
        assert isinstance(document, dict)
        return document

    def _told(self, document: dict[str, Any]) -> str:
        """Return an object's status and its events."""
        if not document:
            return "it does not exist"
        lines = [json.dumps(document.get("status", {}), indent=2)]
        selector = f"--field-selector=involvedObject.uid={document['metadata']['uid']}"
        for event in self.get("events", selector)["items"]:
            lines.append(f"{event['type']} {event['reason']} x{event.get('count', 1)}: {event['message']}")
        return "\n".join(lines)


def is_ready(document: dict[str, Any]) -> bool:
    """Return whether an object's condition Ready is true."""
    conditions = document.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def has_phase(phase: str) -> Callable[[dict[str, Any]], bool]:
    """Return a test for an object's phase."""
    return lambda document: document.get("status", {}).get("phase") == phase
