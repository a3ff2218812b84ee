"""Files appear complete or not at all, whoever dies or meets while they are written."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from imagekit.base import files
from imagekit.base.errors import AccessError, ImagekitError, NoSpaceError, NotFoundError, UsageError
from tests.rules.sources import ROOT


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def break_off(target: Path) -> None:
    with files.atomic_file(target) as file:
        file.write(b"new")
        raise KeyboardInterrupt


def break_off_by_name(target: Path) -> None:
    with files.atomic_path(target) as path:
        path.write_bytes(b"half")
        raise KeyboardInterrupt


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "disk.img"
    with files.atomic_file(target, mode=0o600) as file:
        file.write(b"content")
        assert names(tmp_path) == {".disk.img.partial"}
    assert target.read_bytes() == b"content"
    assert target.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == {"disk.img"}


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "disk.img"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        break_off(target)
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == {"disk.img"}


def test_what_a_dead_run_left_is_replaced(tmp_path: Path) -> None:
    files.partial_path(tmp_path / "disk.img").write_bytes(b"half" * 1000)
    files.write_file(tmp_path / "disk.img", b"whole")
    assert names(tmp_path) == {"disk.img"}
    assert (tmp_path / "disk.img").read_bytes() == b"whole"


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "disk.img"
    with files.atomic_file(target) as file:
        file.write(b"first")
        with pytest.raises(UsageError, match="another process is writing") as caught, files.atomic_file(target):
            pass
        assert caught.value.reason == "InUse"
    assert target.read_bytes() == b"first"


@pytest.mark.process
def test_a_killed_writer_is_no_obstacle(tmp_path: Path) -> None:
    target = tmp_path / "disk.img"
    script = (
        "import os, signal, pathlib\n"
        "from imagekit.base.files import atomic_file, atomic_path\n"
        f"target = pathlib.Path({str(target)!r})\n"
        "with atomic_file(target) as file, atomic_path(target) as path:\n"
        "    path.write_bytes(b'half'); file.write(b'half'); file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=False)
    assert ended.returncode == -9
    assert names(tmp_path) == {".disk.img.partial", ".disk.img.partial.d"}
    with files.atomic_path(target) as path:
        path.write_bytes(b"by name")
    files.write_file(tmp_path / "disk.img", b"whole")
    assert names(tmp_path) == {"disk.img"}


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    files.partial_path(tmp_path / "disk.img").symlink_to(victim)
    with pytest.raises(UsageError, match="in the way"):
        files.write_file(tmp_path / "disk.img", b"content")
    assert victim.read_bytes() == b"precious"


def test_a_planted_hard_link_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    files.partial_path(tmp_path / "disk.img").hardlink_to(victim)
    files.write_file(tmp_path / "disk.img", b"content")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "disk.img").read_bytes() == b"content"


def test_a_file_by_name_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "disk.vmdk"
    with files.atomic_path(target) as path:
        assert path.name == "disk.vmdk"
        path.write_bytes(b"content")
        assert not target.exists()
        with pytest.raises(UsageError, match="another process"), files.atomic_path(target):
            pass
        assert path.exists(), "the second writer took nothing away"
    assert names(tmp_path) == {"disk.vmdk"}
    with pytest.raises(KeyboardInterrupt):
        break_off_by_name(target)
    assert target.read_bytes() == b"content"
    assert names(tmp_path) == {"disk.vmdk"}


def test_no_directory_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no directory"):
        files.write_file(tmp_path / "missing" / "disk.img", b"")
    with pytest.raises(NotFoundError, match="no directory"), files.atomic_path(tmp_path / "missing" / "disk.img"):
        pass


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    regular = tmp_path / "regular"
    regular.write_bytes(b"content")
    descriptor = files.open_regular(regular)
    assert os.read(descriptor, 100) == b"content"
    os.close(descriptor)
    (tmp_path / "link").symlink_to(regular)
    os.mkfifo(tmp_path / "pipe")
    for path, error in [
        (tmp_path / "missing", NotFoundError),
        (regular / "below", NotFoundError),
        (tmp_path / "link", UsageError),
        (tmp_path / "pipe", UsageError),
        (tmp_path, UsageError),
        (Path("/dev/zero"), UsageError),
    ]:
        with pytest.raises(error) as caught:
            files.open_regular(path)
        assert caught.value.hint


@pytest.mark.network
def test_a_socket_is_not_opened(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(UsageError):
            files.open_regular(tmp_path / "socket")


def test_missing_space_is_told_with_the_amount(tmp_path: Path) -> None:
    files.require_free_bytes(tmp_path, 1, purpose="test")
    with pytest.raises(NoSpaceError, match="needed") as caught:
        files.require_free_bytes(tmp_path, 1 << 60, purpose="keep the disk")
    assert caught.value.exit_code == 7
    assert "free at least" in caught.value.hint


@pytest.mark.parametrize(
    ("number", "family", "reason"),
    [
        (errno.ENOSPC, NoSpaceError, "NoSpace"),
        (errno.EDQUOT, NoSpaceError, "NoSpace"),
        (errno.ENOENT, NotFoundError, "NotFound"),
        (errno.EIO, ImagekitError, "IOError"),
        (errno.ENOTDIR, NotFoundError, "NotFound"),
        (errno.EACCES, AccessError, "Forbidden"),
        (errno.EROFS, AccessError, "Forbidden"),
        (errno.ENAMETOOLONG, ImagekitError, "Failed"),
    ],
)
def test_system_errors_become_ours(number: int, family: type[ImagekitError], reason: str) -> None:
    error = files.translate_os_error(OSError(number, os.strerror(number)), doing="write x")
    assert type(error) is family
    assert error.reason == reason
    assert error.message.startswith("cannot write x: ")


def test_a_read_only_file_system_is_no_matter_of_modes() -> None:
    error = files.translate_os_error(OSError(errno.EROFS, "Read-only file system"), doing="write x")
    assert "mount" in error.hint
