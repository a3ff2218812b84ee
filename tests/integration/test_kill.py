"""kill -9 at random moments: nothing half-written has a final name, the next run succeeds, and nothing is left behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagekit.base.errors import NotFoundError
from imagekit.base.progress import SilentProgress
from imagekit.base.units import MIB
from registrydisk.access import RegistryAccess
from registrydisk.digest import VerifyingStream
from registrydisk.places import open_source
from registrydisk.reference import Location
from registrydisk.selection import select_manifest
from tests.support.commands import command_environment, command_line
from tests.support.qemu import image_of
from tests.support.services import RunningRegistry

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(300)]

KILLS = 30
DISK_BYTES = 96 * MIB
ACCESS = RegistryAccess(is_plain_http=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A disk as raw and qcow2 files, and an image of it."""

    raw: Path
    qcow2: Path
    layout: str


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    scratch = tmp_path_factory.mktemp("disk")
    source = random.Random(11)
    raw = scratch / "disk.raw"
    raw.write_bytes(b"".join(source.randbytes(MIB) if number % 2 else bytes(MIB) for number in range(DISK_BYTES // MIB)))
    qcow2 = image_of(raw, scratch / "disk.qcow2", "qcow2")
    complete(command_line("registrydisk", "build", str(qcow2), "-t", f"oci:{scratch}/layout:1"))
    return Sample(raw=raw, qcow2=qcow2, layout=f"oci:{scratch}/layout:1")


def started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=command_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def complete(command: Sequence[str]) -> float:
    """Run a command to its good end, and return its seconds."""
    start = time.monotonic()
    process = started(command)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said.decode()
    return time.monotonic() - start


def kill_after(seconds: float, command: Sequence[str]) -> None:
    """Kill a command, with all that it started, after a while; it may have ended by then."""
    process = started(command)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    _, said = process.communicate(timeout=30)
    assert process.returncode in (0, -signal.SIGKILL), said.decode()


def torment(commands: Sequence[Sequence[str]], *, reset: Callable[[], None], check: Callable[[bool], None]) -> None:
    """Kill the commands in turn at 30 moments of their work; every fifth time let one end.

    Args:
        reset: Takes away what a command made, so that the next one has all of its work to do.
        check: Looks at what there is; its argument tells whether the last command was let end.
    """
    moments = random.Random(KILLS)
    idle_seconds = complete(command_line("registrydisk", "build", "--help"))
    work_seconds = []
    for command in commands:
        work_seconds.append(complete(command))
        check(True)
        reset()
    for number in range(KILLS):
        turn = number % len(commands)
        kill_after(moments.uniform(idle_seconds, work_seconds[turn]), commands[turn])
        check(False)
        if number % 5 == 4:
            complete(commands[(number // 5) % len(commands)])
            check(True)
            reset()


def test_import(sample: Sample, tmp_path: Path, registry: RunningRegistry) -> None:
    volume, image = tmp_path / "volume", f"docker://{registry.host}/kill/import:1"
    volume.mkdir()
    complete(command_line("registrydisk", "push", sample.layout, image))
    vmdk = image_of(sample.raw, tmp_path / "disk.vmdk", "vmdk")
    expected = hashlib.sha256(sample.raw.read_bytes()).hexdigest()
    disk = volume / "disk.img"

    def check(has_ended: bool) -> None:
        if disk.exists():
            assert hashlib.sha256(disk.read_bytes()).hexdigest() == expected
        if has_ended:
            assert os.listdir(volume) == ["disk.img"]
        hidden = {".disk.img.partial", ".disk.img.journal"}
        assert set(os.listdir(volume)) <= hidden | {"disk.img"}

    commands = [
        command_line("cdi", "import", str(source), str(volume), "--overwrite", "--progress=none")
        for source in (sample.qcow2, image, sample.raw, vmdk)
    ]
    torment(commands, reset=lambda: disk.unlink(missing_ok=True), check=check)


def verified_blobs(location: str) -> set[str] | None:
    """Read all of an image; return its blobs' and manifest's digests, or None when there is no image."""
    try:
        with open_source(Location.parse(location), access=ACCESS, progress=SilentProgress()) as source:
            descriptor, manifest = select_manifest(source)
            for blob in (manifest.config, *manifest.layers):
                with contextlib.closing(source.open_blob(blob)) as reader:
                    VerifyingStream(reader, digest=blob.digest, size_bytes=blob.size_bytes, what="a blob").drain()
            return {str(part.digest) for part in (descriptor, manifest.config, *manifest.layers)}
    except NotFoundError:
        return None


def test_push(sample: Sample, registry: RunningRegistry) -> None:
    image = f"docker://{registry.host}/kill/push:1"

    def check(has_ended: bool) -> None:
        found = verified_blobs(image)
        assert found is not None or not has_ended

    def reset() -> None:
        shutil.rmtree(registry.root / "data/docker/registry/v2/repositories/kill/push")
        shutil.rmtree(registry.root / "data/docker/registry/v2/blobs")

    torment([command_line("registrydisk", "push", sample.layout, image, "--progress=none")], reset=reset, check=check)


def test_build(sample: Sample, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    expected = verified_blobs(sample.layout)

    def check(has_ended: bool) -> None:
        found = verified_blobs(f"oci:{layout}:1") if layout.exists() else None
        assert found in ((expected,) if has_ended else (expected, None))
        if has_ended:
            assert expected is not None
            assert sorted(path.name for path in layout.iterdir()) == ["blobs", "index.json", "oci-layout"]
            assert {f"sha256:{path.name}" for path in (layout / "blobs/sha256").iterdir()} == expected

    command = command_line("registrydisk", "build", str(sample.qcow2), "-t", f"oci:{layout}:1", "--progress=none")
    torment([command], reset=lambda: shutil.rmtree(layout), check=check)
