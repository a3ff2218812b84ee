"""Detached descendants are adopted, reaped and ended; children of our own are left to whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from launcher.subreaper import adoption, reaping

pytestmark = pytest.mark.process

DETACHED = 'setsid sh -c \'{ echo $BASHPID >/dev/null; sh -c "echo \\$\\$ > $0; exec $1" "$0" "$1" & }\' "$0" "$1"'


def detached(pid_file: Path, command: str) -> int:
    """Start ``command`` as a daemon that forked twice, and return its process id."""
    started = subprocess.run(["sh", "-c", DETACHED, str(pid_file), command], check=True, timeout=20, stdin=subprocess.DEVNULL)
    assert started.returncode == 0
    deadline = time.monotonic() + 10
    while not pid_file.exists() or not pid_file.read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(pid_file.read_text())


def test_exit_codes_are_known_and_nothing_is_left(tmp_path: Path) -> None:
    own = subprocess.Popen(["sleep", "100"], start_new_session=True)
    with adoption():
        with reaping(own.pid) as reaper:
            killed = detached(tmp_path / "killed", "sleep 100")
            assert Path(f"/proc/{killed}/stat").read_text().rpartition(")")[2].split()[1] == str(os.getpid())
            os.kill(killed, signal.SIGTERM)
            assert reaper.exit_code(killed, patience_seconds=10) == -signal.SIGTERM
            failed = detached(tmp_path / "failed", "sh -c 'exit 7'")
            assert reaper.exit_code(failed, patience_seconds=10) == 7
            left = detached(tmp_path / "left", "sleep 100")
            assert reaper.exit_code(left, patience_seconds=0) is None
        assert not Path(f"/proc/{left}").exists()
        assert own.poll() is None
    own.kill()
    own.wait()


def test_own_child_keeps_its_exit_code(tmp_path: Path) -> None:
    own = subprocess.Popen(["sleep", "100"], start_new_session=True)
    with adoption(), reaping(own.pid):
        sibling = subprocess.Popen(["sh", "-c", "exit 3"])
        assert sibling.wait(10) == 3
        own.kill()
        assert own.wait(10) == -signal.SIGKILL


def test_children_started_afterwards_are_not_touched() -> None:
    own = subprocess.Popen(["sleep", "100"], start_new_session=True)
    with adoption(), reaping(own.pid):
        pass
    child = subprocess.Popen(["sh", "-c", "exit 3"], start_new_session=True)
    deadline = time.monotonic() + 1
    while Path(f"/proc/{child.pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert child.wait(10) == 3
    own.kill()
    own.wait()
