"""A partial file is published whole or removed, and those of killed writers go away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imagekit.base.errors import ImagekitError, NotFoundError
from registrydisk.partial_file import PartialFile, remove_stale
from tests.support.commands import command_environment

_WRITE_AND_WAIT = """
import sys
from pathlib import Path
from registrydisk.partial_file import PartialFile
import os
file = PartialFile(Path(sys.argv[1]), stem="blob")
os.write(file.descriptor, b"half")
print("ready", flush=True)
sys.stdin.read()
"""


def test_published_files_have_an_ordinary_mode(tmp_path: Path) -> None:
    file = PartialFile(tmp_path, stem="x")
    os.write(file.descriptor, b"content")
    assert not (tmp_path / "x").exists()
    file.publish(tmp_path / "x")
    file.discard()
    assert (tmp_path / "x").read_bytes() == b"content"
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_discarded_files_leave_nothing(tmp_path: Path) -> None:
    file = PartialFile(tmp_path, stem="x")
    file.discard()
    file.discard()
    assert not list(tmp_path.iterdir())


def test_failed_publication_leaves_nothing(tmp_path: Path) -> None:
    file = PartialFile(tmp_path, stem="x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(ImagekitError, match="cannot write"):
        file.publish(tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        PartialFile(tmp_path / "missing", stem="x")


def test_files_in_use_and_other_names_are_kept(tmp_path: Path) -> None:
    file = PartialFile(tmp_path, stem="[a]")
    (tmp_path / ".other.0.partial").touch()
    remove_stale(tmp_path, stem="[a]")
    assert len(list(tmp_path.iterdir())) == 2
    file.discard()


@pytest.mark.process
def test_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITE_AND_WAIT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=command_environment(),
    )
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        remove_stale(tmp_path, stem="blob")
        assert len(list(tmp_path.iterdir())) == 1
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    remove_stale(tmp_path, stem="blob")
    assert not list(tmp_path.iterdir())
