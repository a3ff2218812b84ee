"""The main job, end to end on real parts: guest disk → RegistryDisk → registry → volume → booted machine."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagekit.base.process import ProcessLimits, run
from imagekit.base.units import format_duration, format_size
from tests.guest import build_guest
from tests.support.boot import booted
from tests.support.services import running_registry

_STEP_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One row of the table: what was done, how long it took, how many bytes it made."""

    name: str
    seconds: float
    size_bytes: int | None
    result: str


def run_demo(scratch: Path) -> list[Step]:
    """Do the main job below ``scratch`` and return its steps; any failure raises."""
    disk, volume = scratch / "guest.qcow2", scratch / "volume"
    volume.mkdir()
    steps = [_timed("build the guest disk", lambda: _guest(disk))]
    with running_registry(scratch / "registry") as registry:
        image = f"docker://{registry.host}/guest:demo"
        steps += [
            _timed("make a RegistryDisk", lambda: _build(disk, scratch / "layout")),
            _timed("push it to a registry", lambda: _push(scratch / "layout", image)),
            _timed("import it into a volume", lambda: _import(image, volume)),
        ]
    return [*steps, *_boot(volume)]


def table(steps: Sequence[Step]) -> str:
    """Return the steps as a table."""
    rows = [("step", "time", "size", "result")]
    rows += [(step.name, format_duration(step.seconds), _size(step.size_bytes), step.result) for step in steps]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows)


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else format_size(size_bytes)


def _timed(name: str, work: Callable[[], tuple[int | None, str]]) -> Step:
    print(f"==> {name}", file=sys.stderr, flush=True)
    start = time.monotonic()
    size_bytes, result = work()
    return Step(name=name, seconds=time.monotonic() - start, size_bytes=size_bytes, result=result)


def _guest(disk: Path) -> tuple[int, str]:
    build_guest(disk)
    return disk.stat().st_size, disk.name


def _command(module: str, *arguments: str) -> bytes:
    """Run one of our commands as a user would, and return what it printed."""
    environment = {name: os.environ[name] for name in ("HOME", "PYTHONPATH") if name in os.environ}
    return run(
        [sys.executable, "-m", f"{module}.cli.main", *arguments],
        purpose=f"run {module} {arguments[0]}",
        limits=ProcessLimits(timeout_seconds=_STEP_SECONDS),
        environment=environment,
    ).stdout


def _build(disk: Path, layout: Path) -> tuple[int, str]:
    printed = _command("registrydisk", "build", str(disk), "-t", f"oci:{layout}:demo", "--progress=none")
    blobs = sum(blob.stat().st_size for blob in (layout / "blobs").rglob("*") if blob.is_file())
    return blobs, printed.decode().strip().rpartition("@")[2][:19] + "…"


def _push(layout: Path, image: str) -> tuple[None, str]:
    _command("registrydisk", "push", f"oci:{layout}:demo", image, "--progress=none")
    return None, image


def _import(image: str, volume: Path) -> tuple[int, str]:
    printed = _command("cdi", "import", image, str(volume), "--progress=none", "-o", "json")
    virtual_size_bytes = int(json.loads(printed)["virtualSizeBytes"])
    allocated_bytes = (volume / "disk.img").stat().st_blocks * 512
    return allocated_bytes, f"disk.img, {format_size(virtual_size_bytes)} virtual, verified"


def _boot(volume: Path) -> list[Step]:
    steps = []
    with booted(str(volume)) as machine:
        steps.append(
            _timed(
                "boot it to the login prompt", lambda: (None, machine.wait_for(b"login:", 180).decode("utf-8", "replace").strip())
            )
        )
        steps.append(_timed("shut it down", lambda: (None, f"exit code {machine.shutdown()}")))
    return steps
