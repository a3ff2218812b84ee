"""The objects that the cluster's tests create: pods of the shell image, claims, services."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Document = dict[str, Any]


def pod(
    name: str,
    script: str,
    *,
    image: str,
    node: str = "",
    mounts: Sequence[Document] = (),
    devices: Sequence[Document] = (),
    volumes: Sequence[Document] = (),
) -> Document:
    """Return a pod that runs a shell script, on ``node`` or where the scheduler puts it."""
    container = {
        "name": "main",
        "image": image,
        "command": ["sh", "-c", script],
        "volumeMounts": list(mounts),
        "volumeDevices": list(devices),
    }
    specification: Document = {
        "containers": [container],
        "volumes": list(volumes),
        "terminationGracePeriodSeconds": 0,
        "restartPolicy": "Never",
    }
    if node:
        specification["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": specification}


def claim(name: str, *, storage_class: str, mode: str = "Filesystem", access: str = "ReadWriteOnce") -> Document:
    """Return a claim for 64 MiB."""
    specification = {
        "storageClassName": storage_class,
        "volumeMode": mode,
        "accessModes": [access],
        "resources": {"requests": {"storage": "64Mi"}},
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": specification}


def service(name: str, *, port: int) -> Document:
    """Return a service in front of the pods that are labelled ``app: NAME``."""
    specification = {"selector": {"app": name}, "ports": [{"port": port, "targetPort": port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": specification}


def claimed(name: str) -> Document:
    """Return the volume of a claim, under the claim's name."""
    return {"name": name, "persistentVolumeClaim": {"claimName": name}}
