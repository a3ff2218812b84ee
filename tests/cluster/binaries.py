"""The cluster's programs, built from pinned Go modules and kept until a pin changes."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagekit.base.errors import ToolError
from imagekit.base.process import ProcessLimits, run
from tests.support.prerequisites import SEARCH_PATH
from tests.support.services import cache_directory

_MODULES = Path(__file__).parent / "modules"
_BUILD_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoModule:
    """One directory under ``modules``: what is built from it, and how.

    ``programs`` maps a program's name to its package.
    """

    name: str
    programs: Mapping[str, str]
    tags: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    uses_cgo: bool = False

    @property
    def directory(self) -> Path:
        return _MODULES / self.name

    def build_flags(self) -> list[str]:
        """Return go build's options; ``variables`` are set by the linker."""
        linker = " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in self.variables.items())])
        return ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", linker, *(["-tags", self.tags] if self.tags else [])]


_KUBERNETES_VERSION = "v1.36.3"
_VERSION_PACKAGE = "k8s.io/component-base/version"
_KUBERNETES = GoModule(
    name="kubernetes",
    programs={
        name: f"k8s.io/kubernetes/cmd/{name}"
        for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
    },
    variables={
        f"{_VERSION_PACKAGE}.gitVersion": _KUBERNETES_VERSION,
        f"{_VERSION_PACKAGE}.gitMajor": "1",
        f"{_VERSION_PACKAGE}.gitMinor": "36",
    },
)
_ETCD = GoModule(name="etcd", programs={"etcd": "go.etcd.io/etcd/server/v3"})
_CONTAINERD = GoModule(
    name="containerd",
    programs={name: f"github.com/containerd/containerd/v2/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
    tags="no_btrfs,no_devmapper,no_zfs",
)
_RUNC = GoModule(name="runc", programs={"runc": "github.com/opencontainers/runc"}, tags="seccomp", uses_cgo=True)
_CNI_PACKAGES = "github.com/containernetworking/plugins/plugins"
_CNI = GoModule(
    name="cni",
    programs={
        "bridge": f"{_CNI_PACKAGES}/main/bridge",
        "loopback": f"{_CNI_PACKAGES}/main/loopback",
        "host-local": f"{_CNI_PACKAGES}/ipam/host-local",
        "portmap": f"{_CNI_PACKAGES}/meta/portmap",
    },
)
_REGISTRY = GoModule(name="registry", programs={"registry": "github.com/distribution/distribution/v3/cmd/registry"})
_STORAGE = GoModule(name="storage", programs={"local-path-provisioner": "github.com/rancher/local-path-provisioner"})
_DNS = GoModule(name="dns", programs={"coredns": "imagekit.test/dns"})
_PAUSE = GoModule(name="pause", programs={"pause": "imagekit.test/pause"})
API_MODULES = (_ETCD, _KUBERNETES)  # all that an API server alone needs
MODULES = (_PAUSE, _CNI, _RUNC, _ETCD, _REGISTRY, _STORAGE, _DNS, _CONTAINERD, _KUBERNETES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """The programs, all in one directory."""

    directory: Path

    def __getitem__(self, program: str) -> str:
        return str(self.directory / program)

    @property
    def search_path(self) -> str:
        """A PATH on which a daemon finds the cluster's programs and the system's."""
        return f"{self.directory}:{SEARCH_PATH}"


def build_binaries(directory: Path, modules: tuple[GoModule, ...] = MODULES) -> Binaries:
    """Put the programs of ``modules`` into ``directory``; what is not in the cache is built, and said on standard error."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in built_programs(modules):
        _link(path, directory / path.name)
    return Binaries(directory=directory)


def built_programs(modules: tuple[GoModule, ...] = MODULES) -> list[Path]:
    """Return where the programs are in the cache, building those that are not."""
    go = go_program()
    if go is None:
        raise ToolError(
            "Go is needed to build the cluster's programs",
            reason="ToolMissing",
            hint="install Go 1.21 or newer (https://go.dev/doc/install); it fetches the release that the modules ask for",
        )
    version = run([go, "version"], purpose="ask Go's version", limits=_limits(60), environment=_go_environment()).stdout
    paths = []
    for module in modules:
        directory = cache_directory() / "cluster" / f"{module.name}-{_key(module, version)}"
        if not directory.is_dir():
            _build(go, module, directory)
        paths += [directory / name for name in module.programs]
    return paths


def _link(source: Path, target: Path) -> None:
    """Give a program a second name, or copy it where the cache is on another file system."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def _key(module: GoModule, go_version: bytes) -> str:
    digest = hashlib.sha256(go_version)
    digest.update(repr((module.build_flags(), dict(module.programs), module.uses_cgo)).encode())
    for path in sorted(module.directory.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _build(go: str, module: GoModule, directory: Path) -> None:
    """Build beside the final directory, and name it when it is complete."""
    print(f"==> building {', '.join(module.programs)} (Go module {module.name})", file=sys.stderr)
    scratch = directory.with_name(f".{directory.name}.{os.getpid()}")
    scratch.mkdir(parents=True)
    environment = {**_go_environment(), "CGO_ENABLED": "1" if module.uses_cgo else "0"}
    try:
        for name, package in module.programs.items():
            command = [go, "build", "-C", str(module.directory), *module.build_flags(), "-o", str(scratch / name), package]
            run(command, purpose=f"build {name}", limits=_limits(_BUILD_SECONDS), environment=environment)
        if not directory.is_dir():
            scratch.rename(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def go_program() -> str | None:
    """Return Go's command, from the caller's PATH or from where Go's own archive is unpacked to."""
    return shutil.which("go") or shutil.which("/usr/local/go/bin/go")


def _go_environment() -> dict[str, str]:
    """Return the caller's Go settings: proxies, caches and certificates are the machine's, not ours."""
    kept = ("HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("GO") or name.lower().endswith("_proxy") or name in kept
    }


def _limits(seconds: float) -> ProcessLimits:
    return ProcessLimits(timeout_seconds=seconds)
