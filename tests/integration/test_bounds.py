"""Memory stays bounded, and no second copy of the disk is written, for a disk of 4 GiB."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagekit.base.units import GIB, MIB
from tests.support.commands import Ended, run_measured
from tests.support.services import RunningRegistry

pytestmark = [pytest.mark.process, pytest.mark.network, pytest.mark.slow, pytest.mark.xdist_group("bounds")]

MOST_RESIDENT_BYTES = 128 * MIB
VIRTUAL_BYTES = 4 * GIB
CONTENT_BYTES = 512 * MIB


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory on a real disk: what is written to memory-backed file systems is not counted."""
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="imagekit-bounds-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def raw_disk(place: Path) -> Path:
    """4 GiB with half a GiB of half-compressible data all over it."""
    path = place / "disk.img"
    source = random.Random(7)
    with path.open("wb") as file:
        file.truncate(VIRTUAL_BYTES)
        for number in range(CONTENT_BYTES // MIB):
            file.seek(number * (VIRTUAL_BYTES // (CONTENT_BYTES // MIB)))
            file.write((source.randbytes(2048) + bytes(2047) + b"\x01") * (MIB // 4096))
    return path


@pytest.fixture(scope="module")
def qcow2_disk(raw_disk: Path) -> Path:
    path = raw_disk.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw_disk), str(path)], check=True, timeout=300)
    return path


def bounded(ended: Ended) -> Ended:
    assert ended.exit_code == 0, ended.stderr
    assert ended.resident_bytes < MOST_RESIDENT_BYTES
    return ended


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_build_push_and_import(kind: str, place: Path, raw_disk: Path, qcow2_disk: Path, registry: RunningRegistry) -> None:
    disk = {"raw": raw_disk, "qcow2": qcow2_disk}[kind]
    image = f"{registry.host}/bounds/{kind}:1"
    layout = place / f"layout-{kind}"
    volume = place / f"volume-{kind}"
    volume.mkdir()

    built = bounded(run_measured(place, "registrydisk", "build", str(disk), "-t", f"oci:{layout}:1"))
    layout_bytes = sum(file.stat().st_size for file in layout.rglob("*") if file.is_file())
    assert built.written_bytes < layout_bytes + 16 * MIB

    pushed = bounded(run_measured(place, "registrydisk", "push", f"oci:{layout}:1", image))
    assert pushed.written_bytes < 16 * MIB

    imported = bounded(run_measured(place, "cdi", "import", f"docker://{image}", str(volume), "-o", "json"))
    target = volume / "disk.img"
    assert json.loads(imported.stdout)["virtualSizeBytes"] == VIRTUAL_BYTES
    assert imported.written_bytes < target.stat().st_blocks * 512 + 32 * MIB
    assert os.listdir(volume) == ["disk.img"]
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", str(raw_disk), str(target)], check=True, timeout=300)


def test_build_straight_into_a_registry(place: Path, qcow2_disk: Path, registry: RunningRegistry) -> None:
    built = bounded(
        run_measured(place, "registrydisk", "build", str(qcow2_disk), "-t", f"docker://{registry.host}/bounds/direct:1")
    )
    assert built.written_bytes < 16 * MIB
    assert built.stdout.strip().startswith(f"{registry.host}/bounds/direct:1@sha256:")
