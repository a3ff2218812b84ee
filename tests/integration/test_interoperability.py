"""Others read the images that we build, and we read those that others build, to the same bytes."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi.job import ImportJob
from cdi.pipeline import run_import
from imagekit.base.process import ProcessLimits, run
from imagekit.base.progress import SilentProgress
from registrydisk.access import RegistryAccess
from registrydisk.build import BuildRequest
from registrydisk.build_plan import plan_dockerfile
from registrydisk.build_run import build_all
from registrydisk.compressor import LayerMode
from registrydisk.digest import Digest
from registrydisk.docker_build import build_with_docker
from registrydisk.lint import LintLevel
from registrydisk.lint_run import lint_source
from registrydisk.payload import extract_payload
from registrydisk.places import open_source
from registrydisk.reference import Location
from registrydisk.selection import read_config, select_manifest
from tests.rules.sources import ROOT
from tests.support.images import qcow2_image
from tests.support.prerequisites import require_program
from tests.support.services import RunningDocker, RunningRegistry

pytestmark = [pytest.mark.process, pytest.mark.network]

_SILENT = SilentProgress()
_ACCESS = RegistryAccess(is_plain_http=True)
_LIMITS = ProcessLimits(timeout_seconds=120)
_BASE = "kubevirt/registry-disk-v1alpha"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A qcow2 disk in a build context of its own, not readable by others: builders keep modes, and QEMU must read it."""
    path = tmp_path_factory.mktemp("context") / "fedora.qcow2"
    pattern = bytes(range(256)) * 256
    path.write_bytes(qcow2_image(b"".join(pattern + bytes(1 << 16) for _ in range(64))))
    path.chmod(0o600)
    return path


def _tool(*argv: str) -> bytes:
    require_program(argv[0])
    return run(argv, purpose=f"run {argv[0]}", limits=_LIMITS).stdout


def _built(disk: Path, target: str, mode: LayerMode = LayerMode.GZIP) -> Digest:
    request = BuildRequest(disk=str(disk), mode=mode)
    return build_all([request], Location.parse(target), access=_ACCESS, progress=_SILENT).digest


def _extracted(location: str, target: Path, access: RegistryAccess = _ACCESS) -> bytes:
    with open_source(Location.parse(location), access=access, progress=_SILENT) as source:
        _, manifest = select_manifest(source)
        extract_payload(source, manifest, read_config(source, manifest), target=target, progress=_SILENT)
    return target.read_bytes()


def _imported(location: str, target: Path) -> bytes:
    """Return the volume that the importer fills from an image."""
    job = ImportJob(source=location, target=str(target))
    run_import(job, access=_ACCESS, progress=_SILENT)
    return target.read_bytes()


def _volume(disk: Path) -> bytes:
    """Return the disk in ``disk`` as qemu-img makes a raw volume of it."""
    target = disk.parent.with_name("volume.raw")  # not in the build context
    if not target.exists():
        _tool("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(disk), str(target))
    return target.read_bytes()


def _reasons(location: str) -> set[str]:
    with open_source(Location.parse(location), access=_ACCESS, progress=_SILENT) as source:
        (report,) = lint_source(source, platform=None, is_quick=False, progress=_SILENT)
    return {finding.reason for finding in report.findings if finding.level is not LintLevel.INFO}


# --- others read ours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [LayerMode.GZIP, LayerMode.STORE, LayerMode.ZSTD, LayerMode.NONE])
def test_skopeo_copies_what_we_build(mode: LayerMode, disk: Path, registry: RunningRegistry, tmp_path: Path) -> None:
    name = f"docker://{registry.host}/interop/skopeo:{mode}"
    digest = _built(disk, name, mode)
    _tool("skopeo", "copy", "--quiet", "--src-tls-verify=false", "--preserve-digests", name, f"oci:{tmp_path}/layout:x")
    copied = _tool("skopeo", "inspect", "--format", "{{.Digest}}", f"oci:{tmp_path}/layout:x").decode().strip()
    assert copied == str(digest)
    assert _extracted(f"oci:{tmp_path}/layout:x", tmp_path / "out") == disk.read_bytes()
    assert _reasons(name) <= {"UncompressedRaw"}


@pytest.mark.docker
@pytest.mark.parametrize("mode", [LayerMode.GZIP, LayerMode.STORE, LayerMode.NONE])
def test_docker_pulls_what_we_build(
    mode: LayerMode, disk: Path, registry: RunningRegistry, docker_daemon: RunningDocker, tmp_path: Path
) -> None:
    name = f"{registry.host}/interop/docker:{mode}"
    _built(disk, f"docker://{name}", mode)
    docker = ("docker", "-H", docker_daemon.host)
    _tool(*docker, "pull", "--quiet", name)
    container = _tool(*docker, "create", name).decode().strip()
    try:
        _tool(*docker, "cp", f"{container}:/disk/.", str(tmp_path / "copied"))
    finally:
        _tool(*docker, "rm", container)
    copied = tmp_path / "copied" / disk.name
    assert copied.read_bytes() == disk.read_bytes()
    assert copied.stat().st_mode & 0o777 == 0o444
    saved = tmp_path / "saved.tar"
    _tool(*docker, "save", "-o", str(saved), name)
    assert _extracted(f"docker-archive:{saved}", tmp_path / "out") == disk.read_bytes()


@pytest.mark.docker
def test_docker_takes_what_we_build_for_its_store(disk: Path, docker_daemon: RunningDocker, tmp_path: Path) -> None:
    access = RegistryAccess(environment={"DOCKER_HOST": docker_daemon.host})
    name = "interop/daemon:1"
    request = BuildRequest(disk=str(disk), environment={"A": "1"}, labels={"b": "2"})
    build_all([request], Location.parse(f"docker-daemon:{name}"), access=access, progress=_SILENT)
    shown = _tool("docker", "-H", docker_daemon.host, "inspect", "--format", "{{.Config.Env}} {{.Config.Labels.b}}", name)
    assert shown.decode().strip() == "[A=1] 2"
    assert _extracted(f"docker-daemon:{name}", tmp_path / "out", access) == disk.read_bytes()


# --- we read others' ----------------------------------------------------------------------------------------------------


def _dockerfile(context: Path, text: str) -> Path:
    path = context / "Dockerfile"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def base_image(docker_daemon: RunningDocker) -> str:
    """Our base image, built by docker under the name that Dockerfiles use."""
    context = ROOT / "Dockerfiles" / "registry-disk-v1alpha"
    run(
        ["docker", "-H", docker_daemon.host, "build", "--quiet", "-t", _BASE, str(context)],
        purpose="build the base",
        limits=_LIMITS,
    )
    return _BASE


@pytest.mark.docker
@pytest.mark.parametrize("base", [_BASE, "scratch"])
def test_the_articles_dockerfile_builds_with_docker_and_without(
    base: str, base_image: str, disk: Path, registry: RunningRegistry, docker_daemon: RunningDocker, tmp_path: Path
) -> None:
    dockerfile = _dockerfile(disk.parent, f"FROM {base}\nCOPY *.qcow2 /disk/\nLABEL from=file\n")
    environment = {"DOCKER_HOST": docker_daemon.host}
    access = RegistryAccess(is_plain_http=True, environment=environment)
    name = f"{registry.host}/interop/article:{base.partition('/')[0]}"
    location = Location.parse(f"docker-daemon:{name}")
    built = build_with_docker(location, context=disk.parent, dockerfile=dockerfile, platforms=(), access=access, progress=_SILENT)
    assert built.pinned.startswith(f"docker-daemon:{name}@sha256:")
    _tool("docker", "-H", docker_daemon.host, "push", "--quiet", name)
    assert _extracted(f"docker://{name}", tmp_path / "docker") == disk.read_bytes()
    assert _imported(f"docker://{name}", tmp_path / "volume-docker") == _volume(disk)
    assert "UnreadableDisk" in _reasons(f"docker://{name}")

    requests = plan_dockerfile(BuildRequest(disk=""), dockerfile=dockerfile, context=disk.parent, platforms=())
    ours = build_all(requests, Location.parse(f"oci:{tmp_path}/layout:x"), access=access, progress=_SILENT)
    assert ours.images[0].payload_digest == Digest.of(disk.read_bytes())
    assert _extracted(f"oci:{tmp_path}/layout:x", tmp_path / "ours") == disk.read_bytes()
    assert _imported(f"oci:{tmp_path}/layout:x", tmp_path / "volume-ours") == _volume(disk)


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """The words that run buildah with a store of its own."""
    require_program("buildah")
    root = tmp_path / "buildah"
    yield ("buildah", "--root", f"{root}/root", "--runroot", f"{root}/run", "--storage-driver", "vfs")
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.root
def test_what_buildah_builds_is_read(buildah: tuple[str, ...], disk: Path, registry: RunningRegistry, tmp_path: Path) -> None:
    dockerfile = _dockerfile(disk.parent, "FROM scratch\nADD --chown=107:107 fedora.qcow2 /disk/disk.img\n")
    name = f"{registry.host}/interop/buildah:1"
    _tool(*buildah, "bud", "--quiet", "--isolation", "chroot", "-f", str(dockerfile), "-t", name, str(disk.parent))
    _tool(*buildah, "push", "--quiet", "--tls-verify=false", name)
    assert _extracted(f"docker://{name}", tmp_path / "out") == disk.read_bytes()
    assert _imported(f"docker://{name}", tmp_path / "volume-out") == _volume(disk)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_what_skopeo_compresses_again_is_read(compression: str, disk: Path, tmp_path: Path) -> None:
    _built(disk, f"oci:{tmp_path}/ours:x", LayerMode.NONE)
    command = ("skopeo", "copy", "--quiet", "--dest-compress", "--dest-compress-format", compression)
    _tool(*command, f"oci:{tmp_path}/ours:x", f"dir:{tmp_path}/again")
    _tool("skopeo", "copy", "--quiet", f"dir:{tmp_path}/again", f"oci:{tmp_path}/theirs:x")
    assert _extracted(f"oci:{tmp_path}/theirs:x", tmp_path / "out") == disk.read_bytes()
    assert _imported(f"oci:{tmp_path}/theirs:x", tmp_path / "volume-out") == _volume(disk)


def test_gnu_tar_reads_the_layer(disk: Path, tmp_path: Path) -> None:
    _built(disk, f"oci:{tmp_path}/ours:x", LayerMode.NONE)
    blobs = sorted((tmp_path / "ours/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    listing = _tool("tar", "--numeric-owner", "-tvf", str(blobs[-1])).decode()
    assert listing.splitlines()[0].startswith("dr-xr-xr-x 107/107")
    assert listing.splitlines()[1].split()[:3] == ["-r--r--r--", "107/107", str(disk.stat().st_size)]
    assert tarfile.is_tarfile(blobs[-1])
