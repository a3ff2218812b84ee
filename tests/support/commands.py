"""Our console commands as a user runs them, in a process of their own, with what they used."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.rules.sources import ROOT

MODULES = {"imagekit": "imagekit", "registrydisk": "registrydisk", "cdi": "cdi", "virt-launcher": "launcher"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that ended; ``written_bytes`` is what it made the kernel write to disks."""

    exit_code: int
    stdout: str
    stderr: str
    resident_bytes: int
    written_bytes: int


def command_line(program: str, *arguments: str) -> list[str]:
    """Return the argument list that runs one of our commands from this tree."""
    return [sys.executable, "-m", f"{MODULES[program]}.cli.main", *arguments]


def command_environment() -> dict[str, str]:
    """Return an environment in which our packages are found."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}


def run_measured(scratch: Path, program: str, *arguments: str) -> Ended:
    """Run a command to its end and measure it; its output passes through files in ``scratch``."""
    with (scratch / "stdout").open("wb") as stdout, (scratch / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            command_line(program, *arguments), env=command_environment(), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(
        exit_code=process.returncode,
        stdout=(scratch / "stdout").read_text(),
        stderr=(scratch / "stderr").read_text(),
        resident_bytes=usage.ru_maxrss * 1024,
        written_bytes=usage.ru_oublock * 512,
    )
