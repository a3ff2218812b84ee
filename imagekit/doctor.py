"""What this machine has of what the toolkit needs, and which Debian package brings the rest.

Each question is one small function that answers with one ``Diagnosis``; nothing is changed and no network is used but
the docker daemon's own socket.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import socket
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from imagekit.base.errors import ImagekitError
from imagekit.base.files import free_bytes
from imagekit.base.process import ProcessLimits, find_program, run
from imagekit.base.units import GIB, MIB, format_size

_LIMITS = ProcessLimits(timeout_seconds=10, address_space_bytes=GIB, output_bytes=MIB)
_OLDEST_QEMU = (7, 0)
_OLDEST_PYTHON = (3, 11)
_LIBRARIES = ("click", "docker", "isal", "platformdirs", "PyYAML", "requests", "tqdm", "urllib3", "zstandard")
_LAUNCHER_LIBRARIES = ("libvirt-python", "msgspec")
_DOCKER_SECONDS = 5
_LEAST_FREE_BYTES, _COMFORTABLE_FREE_BYTES = GIB, 10 * GIB


class Health(StrEnum):
    """OK; WARN, when only some commands miss it; FAIL, when most do."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One answer: what was looked at, how it is, in words, and what to do about it."""

    name: str
    health: Health
    message: str
    hint: str = ""


def examine(environment: Mapping[str, str], *, cache: Path) -> tuple[Diagnosis, ...]:
    """Return a diagnosis of everything the toolkit needs.

    Args:
        environment: Tells where the docker daemon and the credentials are.
        cache: The directory where downloads are kept.
    """
    return (
        examine_python(),
        *examine_libraries(_LIBRARIES, lacking=Health.FAIL),
        *examine_libraries(_LAUNCHER_LIBRARIES, lacking=Health.WARN),
        *examine_qemu_img(),
        examine_emulator(),
        examine_libvirt(),
        examine_kvm(Path("/dev/kvm")),
        examine_docker(environment),
        examine_space("cache", cache),
        examine_space("scratch", Path("/var/tmp")),  # noqa: S108 - looked at, never written to
        *examine_credentials(environment, home=Path(environment.get("HOME", "/"))),
    )


def _ok(name: str, message: str) -> Diagnosis:
    return Diagnosis(name=name, health=Health.OK, message=message)


def examine_python(version: tuple[int, int] = sys.version_info[:2]) -> Diagnosis:
    """Tell whether Python is new enough."""
    text = ".".join(map(str, version))
    if version >= _OLDEST_PYTHON:
        return _ok("python", text)
    return Diagnosis(name="python", health=Health.FAIL, message=f"{text} is too old", hint="3.11 or newer is needed")


def examine_libraries(names: tuple[str, ...], *, lacking: Health) -> Iterator[Diagnosis]:
    """Tell which Python libraries are installed; ``lacking`` is how bad it is to miss one."""
    extra = "imagekit" if lacking is Health.FAIL else "imagekit[launcher]"
    for name in names:
        try:
            yield _ok(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Diagnosis(name=name, health=lacking, message="not installed", hint=f"pip install '{extra}'")


def examine_qemu_img() -> Iterator[Diagnosis]:
    """Tell qemu-img's version, and whether it writes zstd clusters."""
    name, hint = "qemu-img", "apt install qemu-utils"
    if find_program("qemu-img") is None:
        yield Diagnosis(name=name, health=Health.FAIL, message="not installed", hint=hint)
        return
    printed = run(["qemu-img", "--version"], purpose="read qemu-img's version", limits=_LIMITS).stdout.decode("utf-8", "replace")
    match = re.match(r"qemu-img version (\d+)\.(\d+)\S*", printed)
    if match is None:
        yield Diagnosis(name=name, health=Health.FAIL, message="tells no version", hint=hint)
        return
    if (int(match[1]), int(match[2])) < _OLDEST_QEMU:
        yield Diagnosis(name=name, health=Health.FAIL, message=f"{match[0]} is too old", hint="7.0 or newer is needed")
        return
    yield _ok(name, match[0].removeprefix("qemu-img version "))
    yield _examine_zstd()


def _examine_zstd() -> Diagnosis:
    """Ask for a qcow2 with zstd clusters; a qemu-img built without it refuses while it measures."""
    argv = ["qemu-img", "measure", "-O", "qcow2", "-o", "compression_type=zstd", "--size", "1M"]
    try:
        run(argv, purpose="ask qemu-img for zstd", limits=_LIMITS)
    except ImagekitError:
        hint = "use --compress zlib, or a qemu-utils with zstd"
        return Diagnosis(name="qcow2 zstd", health=Health.WARN, message="qemu-img was built without it", hint=hint)
    return _ok("qcow2 zstd", "supported")


def examine_emulator() -> Diagnosis:
    """Tell whether QEMU's system emulator for this machine is installed."""
    machine = os.uname().machine
    program = f"qemu-system-{machine}"
    if find_program(program) is not None:
        return _ok("emulator", program)
    package = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}.get(machine, "qemu-system-misc")
    message = f"{program} is not installed: no machine can be booted"
    return Diagnosis(name="emulator", health=Health.WARN, message=message, hint=f"apt install {package}")


def examine_libvirt() -> Diagnosis:
    """Tell whether a libvirt daemon is installed; ours is started when it is needed."""
    for program in ("libvirtd", "virtqemud"):
        if find_program(program) is not None:
            return _ok("libvirt", program)
    message = "no libvirtd: no machine can be booted"
    return Diagnosis(
        name="libvirt", health=Health.WARN, message=message, hint="apt install libvirt-daemon libvirt-daemon-driver-qemu"
    )


def examine_kvm(device: Path) -> Diagnosis:
    """Tell whether the KVM device is there; only a guest that ran proves that it works."""
    if not device.exists():
        return Diagnosis(name="kvm", health=Health.WARN, message=f"no {device}: guests are emulated, slowly")
    if not os.access(device, os.R_OK | os.W_OK):
        message = f"{device} may not be opened: guests are emulated, slowly"
        return Diagnosis(name="kvm", health=Health.WARN, message=message, hint="add the user to the group kvm")
    return _ok("kvm", "present, not proven: only a guest that ran tells")


def examine_docker(environment: Mapping[str, str]) -> Diagnosis:
    """Tell whether a docker daemon answers; only docker-daemon: images and ``--engine docker`` need one."""
    address = environment.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    try:
        return _ok("docker", f"{_docker_version(address)} at {address}")
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0][:160]
    message = f"no daemon at {address}: {reason}"
    return Diagnosis(
        name="docker", health=Health.WARN, message=message, hint="apt install docker.io, if docker-daemon: images are used"
    )


def _docker_version(address: str) -> str:
    if address.startswith("unix://"):  # asked first: it is quick, and docker-py leaves a socket open when it finds nobody
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_DOCKER_SECONDS)
            probe.connect(address.removeprefix("unix://"))
    import docker  # a third of a second that only a daemon is worth
    from docker.errors import DockerException

    try:
        client = docker.DockerClient(base_url=address, timeout=_DOCKER_SECONDS)
        try:
            return str(client.version()["Version"])
        finally:
            client.close()
    except (DockerException, ValueError, KeyError) as error:
        raise OSError(str(error)) from error


def examine_space(name: str, directory: Path) -> Diagnosis:
    """Tell how much may be written to ``directory``, or to what it will be made in."""
    name = f"space: {name}"
    while not directory.exists():
        directory = directory.parent
    available_bytes = free_bytes(directory)
    message = f"{format_size(available_bytes)} free in {directory}"
    if available_bytes >= _COMFORTABLE_FREE_BYTES:
        return _ok(name, message)
    health = Health.WARN if available_bytes >= _LEAST_FREE_BYTES else Health.FAIL
    return Diagnosis(name=name, health=health, message=message, hint="disks are large: free some space, or choose another place")


def credential_files(environment: Mapping[str, str], *, home: Path) -> tuple[Path, ...]:
    """Return where credentials for registries are looked for, first one first: containers-auth.json(5), docker-login(1)."""
    stated = environment.get("REGISTRY_AUTH_FILE")
    runtime = environment.get("XDG_RUNTIME_DIR")
    settings = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    docker_settings = Path(environment.get("DOCKER_CONFIG") or home / ".docker")
    return (
        *([Path(stated)] if stated else []),
        *([Path(runtime) / "containers/auth.json"] if runtime else []),
        settings / "containers/auth.json",
        docker_settings / "config.json",
    )


def examine_credentials(environment: Mapping[str, str], *, home: Path) -> Iterator[Diagnosis]:
    """Tell which credential files there are, and whether others may read them; nothing in them is read."""
    found = [path for path in credential_files(environment, home=home) if path.is_file()]
    if not found:
        yield _ok("credentials", "no file: registries are used anonymously")
    for path in found:
        if path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            message = f"{path} may be read by others"
            yield Diagnosis(name="credentials", health=Health.WARN, message=message, hint=f"chmod 600 {path}")
        else:
            yield _ok("credentials", str(path))
