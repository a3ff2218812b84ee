"""Imports into block devices and into file systems that run full: real loop devices, real ext4, real tmpfs."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdi.job import ImportJob, ImportResult
from cdi.pipeline import run_import
from imagekit.base.errors import NoSpaceError, UsageError, VerificationError
from imagekit.base.progress import SilentProgress
from imagekit.base.units import MIB
from registrydisk.access import RegistryAccess
from tests.cdi.layouts import layer, write_layout
from tests.support.prerequisites import missing, require_program
from tests.support.qemu import image_of, sample_raw

pytestmark = [pytest.mark.process, pytest.mark.root]

DISK_BYTES = 24 * MIB


def command(*arguments: str | Path) -> str:
    """Run a program of the system."""
    require_program(str(arguments[0]))
    ended = subprocess.run(
        list(map(str, arguments)), check=True, timeout=60, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return ended.stdout.strip()


@contextlib.contextmanager
def loop_device(backing: Path, size_bytes: int, *, filled: bytes = b"\xee") -> Iterator[Path]:
    """Provide a block device with old content all over it."""
    backing.write_bytes(filled * size_bytes)
    try:
        device = Path(command("losetup", "--find", "--show", backing))
    except subprocess.CalledProcessError:
        missing("loop devices")
    try:
        yield device
    finally:
        command("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(kind: str, size_bytes: int, scratch: Path) -> Iterator[Path]:
    """Provide a small file system."""
    place = scratch / "mounted"
    place.mkdir()
    if kind == "tmpfs":
        command("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", place)
    else:
        (scratch / "ext4").write_bytes(b"")
        os.truncate(scratch / "ext4", size_bytes)
        command("mkfs.ext4", "-q", "-F", "-m", "0", scratch / "ext4")
        command("mount", "-o", "loop", scratch / "ext4", place)
    try:
        yield place
    finally:
        command("umount", place)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return sample_raw(tmp_path / "disk.raw", size_bytes=DISK_BYTES)


def import_disk(source: Path | str, target: Path, **options: bool | int | str) -> ImportResult:
    job = ImportJob(source=str(source), target=str(target), **options)  # type: ignore[arg-type]  # by field name
    return run_import(job, access=RegistryAccess(), progress=SilentProgress())


@pytest.mark.parametrize("way", ["raw", "qcow2", "vmdk", "stream", "image"])
def test_a_device_gets_the_disk_and_zeros(tmp_path: Path, raw: Path, way: str) -> None:
    source: Path | str = raw if way == "raw" else image_of(raw, tmp_path / "s", "vmdk" if way == "vmdk" else "qcow2")
    options: dict[str, str] = {"scratch": str(tmp_path)}
    if way == "stream":
        options["checksum"] = command("sha256sum", source).split()[0]
    elif way == "image":
        source = write_layout(tmp_path / "layout", [layer(("disk/a", Path(source).read_bytes()))])
    before = set(os.listdir(tmp_path)) | {"backing"}
    with loop_device(tmp_path / "backing", DISK_BYTES + 2 * MIB) as device:
        result = import_disk(source, device, size_bytes=DISK_BYTES + MIB, **options)
        content = device.read_bytes()
    assert content[:DISK_BYTES] == raw.read_bytes()
    assert not content[DISK_BYTES : DISK_BYTES + MIB].strip(b"\0"), "the grown part reads as zeros"
    assert content[DISK_BYTES + MIB :] == b"\xee" * MIB, "what is behind the disk is not touched"
    assert result.target == str(device)
    assert set(os.listdir(tmp_path)) <= before


def test_a_device_that_is_too_small_is_left_as_it_was(tmp_path: Path, raw: Path) -> None:
    with loop_device(tmp_path / "backing", DISK_BYTES - 512) as device:
        with pytest.raises(NoSpaceError) as caught:
            import_disk(raw, device)
        assert caught.value.reason == "TooLarge"
        assert device.read_bytes() == b"\xee" * (DISK_BYTES - 512)


def test_a_device_of_exactly_the_right_size_does(tmp_path: Path, raw: Path) -> None:
    with loop_device(tmp_path / "backing", DISK_BYTES) as device:
        import_disk(raw, device)
        assert device.read_bytes() == raw.read_bytes()


def test_half_a_disk_does_not_look_like_one(tmp_path: Path, raw: Path) -> None:
    with loop_device(tmp_path / "backing", DISK_BYTES) as device:
        for checksum in ("sha256:" + "0" * 64,):
            with pytest.raises(VerificationError):
                import_disk(raw, device, checksum=checksum)
            assert device.read_bytes()[:MIB] == bytes(MIB)
        source = write_layout(tmp_path / "layout", [layer(("disk/a", raw.read_bytes()))], diff_ids=["sha256:" + "0" * 64])
        device.write_bytes(b"\xee" * MIB)
        with pytest.raises(VerificationError):
            import_disk(source, device)
        assert device.read_bytes()[:MIB] == bytes(MIB)


def test_a_device_in_use_is_refused(tmp_path: Path, raw: Path) -> None:
    with loop_device(tmp_path / "backing", 32 * MIB) as device:
        command("mkfs.ext4", "-q", "-F", device)
        (tmp_path / "place").mkdir()
        command("mount", device, tmp_path / "place")
        try:
            with pytest.raises(UsageError) as caught:
                import_disk(raw, device)
        finally:
            command("umount", tmp_path / "place")
        assert caught.value.reason == "TargetBusy"


def test_a_device_is_not_imported_over_itself(tmp_path: Path) -> None:
    with loop_device(tmp_path / "backing", 4 * MIB) as device:
        with pytest.raises(UsageError, match="itself"):
            import_disk(device, device)
        assert device.read_bytes() == b"\xee" * 4 * MIB


def test_a_device_as_source(tmp_path: Path) -> None:
    with loop_device(tmp_path / "backing", 4 * MIB) as device:
        import_disk(device, tmp_path / "copy.img")
        assert (tmp_path / "copy.img").read_bytes() == b"\xee" * 4 * MIB


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
@pytest.mark.parametrize("way", ["file", "checksum", "vmdk"])
def test_a_volume_that_runs_full(tmp_path: Path, kind: str, way: str) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(os.urandom(DISK_BYTES))
    source = image_of(raw, tmp_path / "s", "vmdk") if way == "vmdk" else raw
    options: dict[str, bool | str] = {"checksum": command("sha256sum", raw).split()[0]} if way == "checksum" else {}
    with mounted(kind, 12 * MIB, tmp_path) as volume:
        with pytest.raises(NoSpaceError) as caught:
            import_disk(source, volume, **options)
        assert caught.value.reason == "TooLarge"
        left_before = [name for name in os.listdir(volume) if name != "lost+found"]
        assert left_before == []
        if way == "vmdk":
            return
        with pytest.raises(NoSpaceError) as caught:
            import_disk(source, volume, thin=True, **options)
        assert caught.value.hint
        left = sorted(name for name in os.listdir(volume) if name != "lost+found")
        assert left in ([], [".disk.img.journal", ".disk.img.partial"])
        if left:
            return  # what is kept is gone on from, which the next test shows
        assert os.statvfs(volume).f_bavail * os.statvfs(volume).f_frsize > 8 * MIB


def test_an_import_goes_on_when_there_is_space_again(tmp_path: Path) -> None:
    raw = tmp_path / "disk.raw"
    raw.write_bytes(os.urandom(DISK_BYTES))
    with mounted("tmpfs", 32 * MIB, tmp_path) as volume:
        (volume / "other").write_bytes(bytes(20 * MIB))
        with pytest.raises(NoSpaceError):
            import_disk(raw, volume, thin=True)
        (volume / "other").unlink()
        import_disk(raw, volume, thin=True)
        assert (volume / "disk.img").read_bytes() == raw.read_bytes()
        assert os.listdir(volume) == ["disk.img"]
