"""``./dev bench``: our commands beside others' on the same input, interleaved, everything synced; JSON on standard output."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from imagekit.base.units import GIB, MIB
from tests.benchmarks.contests import Contest, ours, prepared_contests
from tests.benchmarks.measure import Result, Sample, measure
from tests.benchmarks.sample_disk import build_sample_disk

_PROGRAMS = (("imagekit", "imagekit"), ("registrydisk", "registrydisk"), ("cdi", "cdi"), ("virt-launcher", "launcher"))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="Three rounds instead of seven.")
@click.option("--rounds", type=int, help="How many rounds; --quick means 3.")
@click.option("--content", "content_mib", type=int, default=700, show_default=True, help="MiB of files on the disk.")
@click.option("--directory", type=click.Path(path_type=Path), default=Path("/var/tmp"), show_default=True, help="Where to work.")
def main(quick: bool, rounds: int | None, content_mib: int, directory: Path) -> None:
    """Measure against other tools. Example: ./dev bench --quick"""
    if os.geteuid() != 0:
        raise click.ClickException("docker needs root: run as root")
    scratch = Path(tempfile.mkdtemp(prefix="imagekit-bench-", dir=directory))
    try:
        report = _run(scratch, rounds or (3 if quick else 7), content_mib * MIB)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    json.dump(report, sys.stdout, indent=2)
    print()


def _run(scratch: Path, rounds: int, content_bytes: int) -> dict[str, object]:
    _say(f"making a disk with {content_bytes // MIB} MiB of files")
    disk = build_sample_disk(scratch / "disk.qcow2", content_bytes=content_bytes, virtual_bytes=4 * GIB)
    report: dict[str, object] = {
        "schemaVersion": 1,
        "machine": {"processors": os.cpu_count(), "python": platform.python_version(), "kernel": platform.release()},
        "disk": {"qcow2Bytes": disk.stat().st_size, "virtualBytes": 4 * GIB},
        "rounds": rounds,
        "help": _help_times(),
    }
    with prepared_contests(disk, scratch) as contests:
        report["contests"] = [_contest(contest, scratch, rounds) for contest in contests]
    return report


def _contest(contest: Contest, scratch: Path, rounds: int) -> dict[str, object]:
    samples: dict[str, list[Sample]] = {}
    contestants = {}
    for number in range(rounds):
        place = scratch / "round"
        place.mkdir()
        for contestant in contest.contestants(place):
            sample = measure(contestant, scratch / "log")
            _say(f"{contest.name}, round {number + 1}: {contestant.name} {sample.wall_seconds:.2f} s")
            samples.setdefault(contestant.name, []).append(sample)
            contestants[contestant.name] = contestant
        shutil.rmtree(place)
    results = [Result(contestant=contestants[name], samples=tuple(taken)) for name, taken in samples.items()]
    us, *others = results
    return {
        "name": contest.name,
        "results": [result.to_json() for result in results],
        "timesFaster": {other.contestant.name: round(other.median_seconds / us.median_seconds, 1) for other in others},
    }


def _help_times() -> dict[str, int]:
    """Return the milliseconds that ``--help`` takes, the least of five."""
    times = {}
    for program, module in _PROGRAMS:
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run(ours(module, "--help"), check=True, stdout=subprocess.DEVNULL, timeout=60)
            taken.append(time.perf_counter() - start)
        times[program] = round(min(taken) * 1000)
    return times


def _say(message: str) -> None:
    print(f"==> {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
