"""Volumes: made on demand in a node's directory or in one that all nodes share, and block devices made before.

Classes: ``local`` (ReadWriteOnce), ``shared`` (ReadWriteMany), ``block`` (a device of one node's) and ``shared-block``
(a device that both nodes see). All wait for the first consumer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagekit.base.process import ProcessLimits, run
from imagekit.base.units import GIB
from tests.cluster.api import ClusterApi
from tests.cluster.binaries import Binaries
from tests.cluster.images import SHELL
from tests.cluster.machine import Machine
from tests.cluster.names import NODES, Names
from tests.cluster.node import LOCAL_VOLUMES, SHARED_VOLUMES

PROVISIONER = "local-path-provisioner"
NAMESPACE = "local-path-storage"
_DRIVER = "rancher.io/local-path"
_STATIC = "kubernetes.io/no-provisioner"
_BLOCK_BYTES = GIB
_LIMITS = ProcessLimits(timeout_seconds=30)
_STORAGE_API = "/apis/storage.k8s.io/v1/storageclasses"
_HELPER_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "helper-pod"},
    "spec": {"containers": [{"name": "helper-pod", "image": SHELL, "imagePullPolicy": "Never"}]},
}


def provisioner(control: Machine, binaries: Binaries, kubeconfig: Path) -> list[str]:
    """Write what the provisioner reads, and return its command line; its namespace must be there."""
    directory = control.directory / "storage"
    directory.mkdir()
    configuration, helper = directory / "config.json", directory / "helper-pod.json"
    configuration.write_text(_provisioner_configuration())
    helper.write_text(json.dumps(_HELPER_POD))
    return [
        *(binaries[PROVISIONER], "start", "--kubeconfig", str(kubeconfig), "--config", str(configuration)),
        *("--helper-image", SHELL, "--helper-pod-file", str(helper), "--namespace", NAMESPACE, "--service-account-name", "default"),
    ]


def _provisioner_configuration() -> str:
    per_node = [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [LOCAL_VOLUMES]}]
    classes = {"local": {"nodePathMap": per_node}, "shared": {"sharedFileSystemPath": SHARED_VOLUMES}}
    return json.dumps({"storageClassConfigs": classes})


def apply_storage(api: ClusterApi, names: Names) -> None:
    """Create the classes, the provisioner's objects, and two block volumes of each kind."""
    api.apply("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    scripts = {
        "setup": '#!/bin/sh\nset -eu\nmkdir -m 0777 -p "$VOL_DIR"\n',
        "teardown": '#!/bin/sh\nset -eu\nrm -rf "$VOL_DIR"\n',
        "config.json": _provisioner_configuration(),
        "helperPod.yaml": json.dumps(_HELPER_POD),
    }
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "local-path-config"}, "data": scripts}
    api.apply(f"/api/v1/namespaces/{NAMESPACE}/configmaps", document)
    for name, driver in (("local", _DRIVER), ("shared", _DRIVER), ("block", _STATIC), ("shared-block", _STATIC)):
        api.apply(_STORAGE_API, _storage_class(name, driver, is_default=name == "local"))
    for node in NODES:
        apply_block_volume(api, f"block-{node}", device=_attach(names, f"block-{node}"), nodes=[node])
    for number in (1, 2):
        apply_block_volume(api, f"shared-block-{number}", device=_attach(names, f"shared-block-{number}"), nodes=NODES)


def _storage_class(name: str, driver: str, *, is_default: bool) -> dict[str, Any]:
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"} if is_default else {}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations},
        "provisioner": driver,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete" if driver == _DRIVER else "Retain",
    }


def apply_block_volume(api: ClusterApi, name: str, *, device: str, nodes: Sequence[str]) -> None:
    """Offer a block device as a volume to pods on ``nodes``; with several of them it may be used on all at once."""
    is_shared = len(nodes) > 1
    node_term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": list(nodes)}]}
    specification = {
        "capacity": {"storage": str(_BLOCK_BYTES)},
        "volumeMode": "Block",
        "accessModes": ["ReadWriteOnce", "ReadWriteMany"] if is_shared else ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "shared-block" if is_shared else "block",
        "local": {"path": device},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [node_term]}},
    }
    document = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": specification}
    api.apply("/api/v1/persistentvolumes", document)


def _attach(names: Names, name: str) -> str:
    """Make a sparse file, and a loop device of it."""
    file = names.directory / "devices" / name
    file.parent.mkdir(exist_ok=True)
    with file.open("xb") as created:
        os.truncate(created.fileno(), _BLOCK_BYTES)
    return run(["losetup", "--find", "--show", str(file)], purpose=f"attach {file}", limits=_LIMITS).stdout.decode().strip()


def detach_devices(directory: Path) -> None:
    """Detach the loop devices whose files are below ``directory``, and those that kubelets made of these devices."""
    ours: set[str] = set()
    while devices := _attached(directory, ours) - ours:
        ours |= devices
    for device in sorted(ours, reverse=True):
        run(["losetup", "--detach", device], purpose=f"detach {device}", limits=_LIMITS, accepted_exit_codes=frozenset({0, 1}))


def _attached(directory: Path, parents: set[str]) -> set[str]:
    listed = run(["losetup", "--json", "--list", "--output", "NAME,BACK-FILE"], purpose="list loop devices", limits=_LIMITS).stdout
    devices = json.loads(listed)["loopdevices"] if listed.strip() else []
    return {
        device["name"]
        for device in devices
        if (file := (device["back-file"] or "").removesuffix(" (deleted)")) in parents or Path(file).is_relative_to(directory)
    }
