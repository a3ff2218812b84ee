"""Container images made of a program or two: a node's pause image, and a small shell for tests and for storage."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PAUSE = "localhost/imagekit/pause:1"
SHELL = "localhost/imagekit/shell:1"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# fmt: off
_APPLETS = (
    "cat", "chmod", "dd", "echo", "hostname", "httpd", "ip", "ls", "mkdir", "nc", "rm", "sh", "sleep", "sync", "timeout",
    "true", "wget",
)
# fmt: on


def write_pause_image(archive: Path, pause: Path) -> None:
    """Write the archive of an image whose only file is ``pause``."""
    write_archive(archive, PAUSE, files={"pause": pause.read_bytes()}, command=["/pause"])


def write_shell_image(archive: Path, busybox: Path, *, name: str = SHELL) -> None:
    """Write the archive of an image with a static busybox.

    The name is part of its configuration: the kubelet keeps who may use an image by that document's digest, and would
    refuse the nodes' own copy to everybody once a pod had pulled the same image from a registry.
    """
    write_archive(archive, name, files={"bin/busybox": busybox.read_bytes()}, links=_APPLETS, command=["/bin/sh"])


def write_archive(
    archive: Path, name: str, *, files: Mapping[str, bytes], command: Sequence[str], links: Sequence[str] = ()
) -> None:
    """Write an image as `docker save` does; ``links`` are names in /bin for its busybox."""
    layer = _layer(files, links)
    configuration = json.dumps(
        {
            "architecture": _ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Entrypoint": list(command), "Env": ["PATH=/bin"], "Labels": {"org.opencontainers.image.ref.name": name}},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    configuration_name = f"{hashlib.sha256(configuration).hexdigest()}.json"
    manifest = [{"Config": configuration_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    members = {configuration_name: configuration, "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    archive.write_bytes(_tar(members))


def _layer(files: Mapping[str, bytes], links: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in ("bin", "tmp", "etc"):
            member = tarfile.TarInfo(directory)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
        for applet in links:
            member = tarfile.TarInfo(f"bin/{applet}")
            member.type, member.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(member)
    return buffer.getvalue()


def _tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
