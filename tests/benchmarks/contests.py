"""What is measured: the same job done by us and by others, with the same input and a fresh target each time."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.measure import Contestant, version_of
from tests.support.services import RunningDocker, running_docker, running_registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """A job; ``contestants`` prepares a round afresh and yields who takes part in it."""

    name: str
    contestants: Callable[[Path], Iterator[Contestant]]


def ours(module: str, *arguments: str) -> list[str]:
    """Return the command line of one of our console commands."""
    return [sys.executable, "-m", f"{module}.cli.main", *arguments]


@contextmanager
def prepared_contests(disk: Path, scratch: Path) -> Iterator[list[Contest]]:
    """Start what the contests need and yield them."""
    with ExitStack() as stack:
        docker = stack.enter_context(running_docker(scratch / "docker"))
        published = stack.enter_context(running_registry(scratch / "published"))
        context = scratch / "context"
        context.mkdir()
        shutil.copyfile(disk, context / "disk.qcow2")
        (context / "Dockerfile").write_text("FROM scratch\nADD --chown=107:107 disk.qcow2 /disk/\n")
        image = f"{published.host}/disk:docker"
        _docker(docker, "build", "--quiet", "--tag", image, str(context))
        _docker(docker, "push", "--quiet", image)
        _docker(docker, "rmi", "--force", image)
        yield [
            Contest(name="build and push", contestants=lambda round_: _build_and_push(docker, context, round_)),
            Contest(name="import docker's gzip layer", contestants=lambda round_: _import(image, round_)),
        ]


def _docker(docker: RunningDocker, *arguments: str) -> None:
    import subprocess

    subprocess.run(["docker", "-H", docker.host, *arguments], check=True, timeout=900, stdout=subprocess.DEVNULL)


def _build_and_push(docker: RunningDocker, context: Path, scratch: Path) -> Iterator[Contestant]:
    with running_registry(scratch / "registry-ours") as registry:
        yield Contestant(
            name="registrydisk",
            version=version("isal") + " (isal)",
            commands=[
                ours(
                    "registrydisk",
                    "build",
                    str(context / "disk.qcow2"),
                    "-t",
                    f"docker://{registry.host}/disk:bench",
                    "--progress=none",
                )
            ],
            written=registry.root,
        )
    with running_registry(scratch / "registry-docker") as registry:
        client, image = ["docker", "-H", docker.host], f"{registry.host}/disk:bench"
        yield Contestant(
            name="docker",
            version=version_of(*client, "version", "--format", "{{.Server.Version}}"),
            commands=[
                [*client, "build", "--no-cache", "--quiet", "--tag", image, str(context)],
                [*client, "push", "--quiet", image],
            ],
            written=registry.root,
            environment={"DOCKER_BUILDKIT": "0"},
        )
        _docker(docker, "rmi", "--force", image)


def _import(image: str, scratch: Path) -> Iterator[Contestant]:
    volume = scratch / "volume"
    volume.mkdir()
    yield Contestant(
        name="cdi",
        version=version("isal") + " (isal)",
        commands=[ours("cdi", "import", f"docker://{image}", str(volume), "--progress=none")],
        written=volume,
    )
    layout, unpacked, target = scratch / "layout", scratch / "unpacked", scratch / "disk.img"
    unpacked.mkdir()
    yield Contestant(
        name="skopeo, tar, qemu-img",
        version=f"{version_of('skopeo', '--version')}; {version_of('qemu-img', '--version')}",
        commands=[
            ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{image}", f"dir:{layout}"],
            [
                "sh",
                "-c",
                'for layer in "$1"/*; do tar -C "$2" -xzf "$layer" disk 2>/dev/null || true; done',
                "sh",
                str(layout),
                str(unpacked),
            ],
            ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(unpacked / "disk/disk.qcow2"), str(target)],
        ],
        written=target,
    )
