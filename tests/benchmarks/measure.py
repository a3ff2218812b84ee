"""One measured run of a command: wall time, processor time, largest resident set."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One run; processor time is that of the commands and their children, not of daemons."""

    wall_seconds: float
    processor_seconds: float
    resident_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A way to do the job: commands that run one after the other, and what they wrote, which is synced in the time."""

    name: str
    commands: Sequence[Sequence[str]]
    version: str
    written: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def command_lines(self) -> list[str]:
        """The commands as one would paste them."""
        return [shlex.join(command) for command in self.commands]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All samples of one contestant."""

    contestant: Contestant
    samples: tuple[Sample, ...]

    def to_json(self) -> dict[str, object]:
        """Return what is printed."""
        return {
            "name": self.contestant.name,
            "version": self.contestant.version,
            "commands": self.contestant.command_lines,
            "wallSeconds": [round(sample.wall_seconds, 3) for sample in self.samples],
            "medianSeconds": round(self.median_seconds, 3),
            "processorSeconds": round(median(sample.processor_seconds for sample in self.samples), 3),
            "residentMiB": round(max(sample.resident_bytes for sample in self.samples) / 2**20, 1),
        }

    @property
    def median_seconds(self) -> float:
        """The middle one of the wall times."""
        return median(sample.wall_seconds for sample in self.samples)


def measure(contestant: Contestant, log: Path) -> Sample:
    """Run a contestant once; what it wrote is on the disk when the clock stops."""
    processor_seconds, resident_bytes = 0.0, 0
    start = time.perf_counter()
    for command in contestant.commands:
        with log.open("ab") as output:
            environment = {**os.environ, **contestant.environment}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise AssertionError(f"{shlex.join(command)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        processor_seconds += usage.ru_utime + usage.ru_stime
        resident_bytes = max(resident_bytes, usage.ru_maxrss * 1024)
    if contestant.written is not None:
        subprocess.run(["sync", "--file-system", str(contestant.written)], check=True, timeout=600)
    return Sample(wall_seconds=time.perf_counter() - start, processor_seconds=processor_seconds, resident_bytes=resident_bytes)


def version_of(*command: str) -> str:
    """Return the first line that a program prints of its version."""
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, stdin=subprocess.DEVNULL).stdout
    return printed.splitlines()[0].strip()
