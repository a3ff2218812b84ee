"""Daemons that tests, the demo and the benchmarks start for themselves, and end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imagekit.base.process import Daemon, ProcessLimits, daemon, find_program, run

_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningRegistry:
    """A real registry (distribution) on loopback; ``host`` is ``127.0.0.1:PORT``."""

    host: str
    root: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningDocker:
    """A docker daemon of our own; ``host`` is the value for ``docker -H``."""

    host: str


def cache_directory() -> Path:
    """Return where downloads and built guests are kept between runs."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imagekit"
    path = Path(os.environ.get("IMAGEKIT_CACHE") or fallback)
    path.mkdir(parents=True, exist_ok=True)
    return path


def unpacked_package(name: str) -> Path:
    """Return a directory with the Debian package ``name`` unpacked, downloaded once; nothing is installed."""
    target = cache_directory() / "deb" / name
    if target.is_dir():
        return target
    scratch = target.with_name(f".{name}.{os.getpid()}")
    scratch.mkdir(parents=True)
    try:
        limits = ProcessLimits(timeout_seconds=300)
        found = run(["apt-get", "download", "--print-uris", name], purpose=f"find the package {name}", limits=limits).stdout
        match = re.match(rb"'([^']+)' (\S+)", found)
        assert match, f"no Debian package {name}"
        run(["sh", "-c", f'cd "{scratch}" && apt-get -q download {name}'], purpose=f"download {name}", limits=limits)
        (package,) = scratch.glob("*.deb")
        run(["dpkg-deb", "-x", str(package), str(scratch / "root")], purpose=f"unpack {name}", limits=limits)
        with contextlib.suppress(OSError):
            (scratch / "root").rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


def wait_until(is_ready: Callable[[], bool], service: Daemon) -> None:
    """Wait for a daemon; its end or 30 s are an error that shows its log's end."""
    deadline = time.monotonic() + _START_SECONDS
    while not is_ready():
        if not service.is_running() or time.monotonic() > deadline:
            raise AssertionError(f"{service.purpose} did not start:\n{service.log_tail()}")
        time.sleep(0.05)


def _registry_program() -> str:
    installed = find_program("docker-registry")
    return str(installed or unpacked_package("docker-registry") / "usr/bin/docker-registry")


@contextlib.contextmanager
def running_registry(root: Path) -> Iterator[RunningRegistry]:
    """Run a registry that keeps its blobs under ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    configuration = root / "config.yml"
    configuration.write_text(
        f"version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {root}/data}}\n"
        f"  delete: {{enabled: true}}\nhttp:\n  addr: {host}\n"
    )
    environment = {"OTEL_TRACES_EXPORTER": "none"}
    program = [_registry_program(), "serve", str(configuration)]
    with daemon(program, purpose="serve a registry", log_path=root / "log", environment=environment) as service:
        wait_until(lambda: _answers(f"http://{host}/v2/"), service)
        yield RunningRegistry(host=host, root=root)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def running_docker(root: Path) -> Iterator[RunningDocker]:
    """Run a docker daemon with everything under ``root``, without touching the machine's network."""
    root.mkdir(parents=True, exist_ok=True)
    host = f"unix://{root}/docker.sock"
    arguments = [
        *("dockerd", "--host", host, "--data-root", f"{root}/data", "--exec-root", f"{root}/exec", "--pidfile", f"{root}/pid"),
        *("--iptables=false", "--ip6tables=false", "--bridge=none", "--insecure-registry", "127.0.0.0/8"),
    ]
    with daemon(arguments, purpose="run dockerd", log_path=root / "log", grace_seconds=20) as service:
        client = ["docker", "-H", host, "version", "--format", "{{.Server.Version}}"]
        limits = ProcessLimits(timeout_seconds=10)
        any_code = frozenset(range(256))
        wait_until(
            lambda: run(client, purpose="ask dockerd", limits=limits, accepted_exit_codes=any_code).exit_code == 0,
            service,
        )
        yield RunningDocker(host=host)
