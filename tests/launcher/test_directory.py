"""The directory of a run: private, locked, and removed also after a run that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.directory import remove_leftovers, run_directory
from launcher.locks import disk_lock
from tests.support.commands import command_environment


def test_directory_lives_as_long_as_its_run(tmp_path: Path) -> None:
    with run_directory(base=tmp_path) as directory:
        assert directory.stat().st_mode & 0o777 == 0o711
        (directory / "file").write_bytes(b"x")
        remove_leftovers(base=tmp_path)
        assert (directory / "file").exists()
        with run_directory(base=tmp_path) as other:
            assert other != directory
    assert list(tmp_path.iterdir()) == []


def test_directory_is_removed_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), run_directory(base=tmp_path):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def leftover(base: Path) -> Path:
    path = base / "virt-launcher-left"
    path.mkdir()
    (path / "lock").write_bytes(b"")
    return path


@pytest.mark.process
def test_leftover_process_is_ended(tmp_path: Path) -> None:
    path = leftover(tmp_path)
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", str(path)]
    left = subprocess.Popen(command, stdin=subprocess.PIPE, env=command_environment())
    other = subprocess.Popen(command[:-1], stdin=subprocess.PIPE, env=command_environment())
    (path / "machine.pid").write_text(str(left.pid))
    (path / "stranger.pid").write_text(str(other.pid))
    remove_leftovers(base=tmp_path)
    assert left.wait(10) == -signal.SIGKILL
    assert other.poll() is None
    assert not path.exists()
    other.communicate(timeout=10)
    assert left.stdin is not None
    left.stdin.close()


def test_hostile_pid_files_are_harmless(tmp_path: Path) -> None:
    path = leftover(tmp_path)
    os.mkfifo(path / "pipe.pid")
    (path / "link.pid").symlink_to("/proc/self/stat")
    (path / "words.pid").write_text("not a number")
    (path / "long.pid").write_text("9" * 100_000)
    remove_leftovers(base=tmp_path)
    assert not path.exists()


def test_what_is_not_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "lock").write_bytes(b"")
    (tmp_path / "virt-launcher-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "virt-launcher-file").write_bytes(b"")
    (tmp_path / "virt-launcher-without-lock").mkdir()
    remove_leftovers(base=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    assert (tmp_path / "elsewhere" / "lock").exists()


def test_disk_has_one_writer_or_many_readers(tmp_path: Path) -> None:
    from imagekit.base.errors import ImagekitError

    disk = tmp_path / "disk"
    disk.write_bytes(b"")
    with disk_lock(disk), pytest.raises(ImagekitError, match="in use"), disk_lock(disk, is_shared=True):
        pass
    with disk_lock(disk, is_shared=True), disk_lock(disk, is_shared=True):
        pass
    with disk_lock(disk):
        pass
