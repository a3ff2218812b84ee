"""Our console commands as a user runs them, in a process of their own, with what they used."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.rules.sources import ROOT

# A program starts with the memory of whoever started it on its account (getrusage(2) counts across execve), so a small
# process must be the one, and not the tests' own.
_MEASURE = """
import os, sys
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, usage.ru_oublock, file=file)
"""
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
        subprocess.run(
            [sys.executable, "-ISc", _MEASURE, str(scratch / "usage"), *command_line(program, *arguments)],
            env=command_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            check=True,
        )
    exit_code, resident_kib, written_blocks = map(int, (scratch / "usage").read_text().split())
    return Ended(
        exit_code=exit_code,
        stdout=(scratch / "stdout").read_text(),
        stderr=(scratch / "stderr").read_text(),
        resident_bytes=resident_kib * 1024,
        written_bytes=written_blocks * 512,
    )
