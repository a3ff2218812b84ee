"""Places for a disk: held against others, never followed through a link, and left as they were when nothing came."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cdi.target import Target, TargetKind, open_spill, open_target
from imagekit.base.errors import NotFoundError, UsageError


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def publish(target: Target, content: bytes = b"disk") -> None:
    target.prepare(keep=False)
    os.pwrite(target.descriptor, content, 0)
    target.publish()


def test_a_directory_gets_a_disk_img(tmp_path: Path) -> None:
    with open_target(str(tmp_path), overwrite=False, scratch=None) as target:
        assert target.path == tmp_path / "disk.img"
        assert target.observe().kind is TargetKind.FILE
        assert names(tmp_path) == [".disk.img.partial"]
        publish(target)
    assert names(tmp_path) == ["disk.img"]
    assert (tmp_path / "disk.img").read_bytes() == b"disk"
    assert (tmp_path / "disk.img").stat().st_mode & 0o777 == 0o660


def test_a_path_becomes_a_file(tmp_path: Path) -> None:
    with open_target(str(tmp_path / "a.raw"), overwrite=False, scratch=None) as target:
        publish(target)
    assert names(tmp_path) == ["a.raw"]


def test_nothing_is_left_of_an_import_that_was_refused_before_it_wrote(tmp_path: Path) -> None:
    with open_target(str(tmp_path), overwrite=False, scratch=None):
        pass
    assert names(tmp_path) == []


def test_what_was_written_is_taken_back_or_kept(tmp_path: Path) -> None:
    for keep, left in ((False, []), (True, [".disk.img.partial"])):
        with open_target(str(tmp_path), overwrite=False, scratch=None) as target:
            target.prepare(keep=False)
            os.pwrite(target.descriptor, b"half", 0)
            target.abandon(keep=keep)
        assert names(tmp_path) == left


def test_an_existing_disk_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"old")
    with pytest.raises(UsageError) as caught, open_target(str(tmp_path), overwrite=False, scratch=None):
        pass
    assert caught.value.reason == "TargetExists"
    assert "--overwrite" in caught.value.hint
    with open_target(str(tmp_path), overwrite=True, scratch=None) as target:
        assert (tmp_path / "disk.img").read_bytes() == b"old"
        publish(target, b"new")
    assert (tmp_path / "disk.img").read_bytes() == b"new"
    assert names(tmp_path) == ["disk.img"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["link", "dangling link", "directory", "pipe"])
def test_what_is_no_plain_file_is_never_replaced(tmp_path: Path, kind: str, overwrite: bool) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.write_bytes(b"precious")
    disk = volume / "disk.img"
    match kind:
        case "link":
            disk.symlink_to(outside)
        case "dangling link":
            disk.symlink_to(tmp_path / "nothing")
        case "directory":
            disk.mkdir()
        case _:
            os.mkfifo(disk)
    with pytest.raises(UsageError) as caught, open_target(str(volume), overwrite=overwrite, scratch=None):
        pass
    assert caught.value.reason == "UnsafeTarget"
    assert outside.read_bytes() == b"precious"
    assert names(volume) == ["disk.img"]


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_a_planted_partial_file_is_not_written_through(tmp_path: Path, kind: str) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.write_bytes(b"precious")
    partial = volume / ".disk.img.partial"
    match kind:
        case "link":
            partial.symlink_to(outside)
        case "hard link":
            partial.hardlink_to(outside)
        case _:
            os.mkfifo(partial)
    with open_target(str(volume), overwrite=False, scratch=None) as target:
        publish(target)
    assert outside.read_bytes() == b"precious"
    assert names(volume) == ["disk.img"]


def test_a_disk_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with open_target(str(tmp_path), overwrite=False, scratch=None) as target:
        target.prepare(keep=False)
        (tmp_path / "disk.img").write_bytes(b"someone else's")
        with pytest.raises(UsageError, match="exists already"):
            target.publish()
        target.abandon(keep=False)
    assert (tmp_path / "disk.img").read_bytes() == b"someone else's"
    assert names(tmp_path) == ["disk.img"]


def test_a_partial_file_that_was_swapped_is_not_published(tmp_path: Path) -> None:
    from imagekit.base.errors import ImagekitError

    with open_target(str(tmp_path), overwrite=False, scratch=None) as target:
        target.prepare(keep=False)
        (tmp_path / ".disk.img.partial").rename(tmp_path / "away")
        (tmp_path / ".disk.img.partial").write_bytes(b"planted")
        with pytest.raises(ImagekitError, match="replaced"):
            target.publish()
        target.abandon(keep=False)
    assert names(tmp_path) == ["away"]


def test_two_imports_do_not_write_one_disk(tmp_path: Path) -> None:
    with open_target(str(tmp_path), overwrite=False, scratch=None) as target:
        with pytest.raises(UsageError) as caught, open_target(str(tmp_path), overwrite=True, scratch=None):
            pass
        assert caught.value.reason == "TargetBusy"
        publish(target)
    assert names(tmp_path) == ["disk.img"]


def test_a_missing_directory_is_not_made(tmp_path: Path) -> None:
    for location in (f"{tmp_path}/a/disk.img", f"{tmp_path}/a/"):
        with pytest.raises(NotFoundError) as caught, open_target(location, overwrite=False, scratch=None):
            pass
        assert caught.value.hint
    assert names(tmp_path) == []


def test_a_missing_directory_for_temporary_copies_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(NotFoundError, match=str(missing)), open_target(str(tmp_path), overwrite=False, scratch=missing):
        pass
    assert names(tmp_path) == []


def test_no_name_is_not_the_current_directory() -> None:
    with pytest.raises(UsageError, match="no target"), open_target("", overwrite=False, scratch=None):
        pass


def test_a_spill_has_no_name(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with open_target(str(tmp_path / "disk.img"), overwrite=False, scratch=scratch) as target, open_spill(target) as file:
        file.write(b"x")
        assert names(scratch) == []
        assert target.scratch == scratch
