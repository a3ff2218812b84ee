"""The sparse writer on real files, a full file system and a used block device."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImagekitError, NoSpaceError
from imagekit.base.process import ProcessLimits, run
from imagekit.base.units import KIB, MIB
from imagekit.image import DiskFormat
from imagekit.stream import FileReader, FileWriter, decode_random, decode_stream
from tests.imagekit.stream.doubles import ChoppyStream
from tests.support.images import BytesReader, qcow2_image, sample_disk
from tests.support.prerequisites import missing

LIMITS = ProcessLimits(timeout_seconds=30)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_holes_stay_holes(tmp_path: Path) -> None:
    disk = sample_disk(64 * MIB, step_bytes=8 * MIB)
    with opened(tmp_path / "disk") as descriptor, FileWriter(descriptor, is_device=False, capacity_bytes=None) as writer:
        decode_stream(DiskFormat.RAW, ChoppyStream(disk), writer, size_bytes=len(disk))
        writer.finish()
        assert os.fstat(descriptor).st_blocks * 512 <= 8 * 64 * KIB
    assert bool((tmp_path / "disk").read_bytes() == disk)


def test_a_growing_disk(tmp_path: Path) -> None:
    disk = sample_disk(3 * MIB) + bytes(5 * MIB + 3)
    with opened(tmp_path / "disk") as descriptor, FileWriter(descriptor, is_device=False, capacity_bytes=None) as writer:
        decode_stream(DiskFormat.RAW, ChoppyStream(disk), writer)
        writer.finish()
    assert bool((tmp_path / "disk").read_bytes() == disk + bytes(509))


def test_old_content_is_gone(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"secret" * 100_000)
    with opened(tmp_path / "disk") as descriptor, FileWriter(descriptor, is_device=False, capacity_bytes=None) as writer:
        writer.begin(MIB)
        writer.write_at(4096, b"x")
        writer.finish()
    assert bool((tmp_path / "disk").read_bytes() == bytes(4096) + b"x" + bytes(MIB - 4097))


@given(order=st.permutations(range(40)), sizes=st.lists(st.integers(1, 90_000), min_size=40, max_size=40))
@settings(max_examples=15, deadline=None)
def test_any_order(tmp_path_factory: pytest.TempPathFactory, order: list[int], sizes: list[int]) -> None:
    starts = [sum(sizes[:number]) for number in range(40)]
    path = tmp_path_factory.mktemp("order") / "disk"
    with opened(path) as descriptor, FileWriter(descriptor, is_device=False, capacity_bytes=None) as writer:
        writer.begin(sum(sizes))
        for number in order:
            writer.write_at(starts[number], bytes([number]) * sizes[number])
        writer.finish()
    assert bool(path.read_bytes() == b"".join(bytes([number]) * sizes[number] for number in range(40)))


def test_a_disk_that_does_not_fit_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"what was there")
    with opened(tmp_path / "disk") as descriptor, FileWriter(descriptor, is_device=False, capacity_bytes=MIB - 1) as writer:
        with pytest.raises(NoSpaceError, match="needs") as caught:
            decode_random(DiskFormat.QCOW2, BytesReader(qcow2_image()), writer)
        assert caught.value.reason == "TooLarge"
    assert (tmp_path / "disk").read_bytes() == b"what was there"


def test_the_callers_descriptor_may_be_closed_early(tmp_path: Path) -> None:
    with opened(tmp_path / "disk") as descriptor:
        writer = FileWriter(descriptor, is_device=False, capacity_bytes=None)
    with opened(tmp_path / "other"), writer:
        writer.begin(8)
        writer.write_at(0, b"the disk")
        writer.finish()
    assert (tmp_path / "disk").read_bytes() == b"the disk"
    assert (tmp_path / "other").read_bytes() == b""


def fill(writer: FileWriter) -> None:
    """Write more than the writer's queue takes."""
    for start in range(0, 64 * MIB, MIB):
        writer.write_at(start, b"x" * MIB)
    writer.finish()


def test_leaving_ends_the_threads(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with opened(tmp_path / "disk") as descriptor, FileWriter(descriptor, is_device=False, capacity_bytes=None) as writer:
        writer.begin(64 * MIB)
        for start in range(0, 64 * MIB, MIB):
            writer.write_at(start, b"x" * MIB)
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    writer.close()


def test_a_failed_write_is_told(tmp_path: Path) -> None:
    """A descriptor that cannot be written stands for a disk that fails."""
    (tmp_path / "disk").write_bytes(b"")
    descriptor = os.open(tmp_path / "disk", os.O_RDONLY)
    try:
        with FileWriter(descriptor, is_device=False, capacity_bytes=None) as writer:
            writer.write_at(0, b"x" * MIB)
            with pytest.raises(ImagekitError):
                writer.finish()
        with FileWriter(descriptor, is_device=False, capacity_bytes=None) as writer, pytest.raises(ImagekitError):
            fill(writer)
        with FileWriter(descriptor, is_device=False, capacity_bytes=None) as writer, pytest.raises(ImagekitError):
            writer.begin(MIB)
    finally:
        os.close(descriptor)


def test_the_reader(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"0123456789")
    with opened(tmp_path / "image") as descriptor:
        reader = FileReader(descriptor)
        assert reader.size_bytes == 10
        assert (reader.read_at(2, 3), reader.read_at(8, 9), reader.read_at(20, 1)) == (b"234", b"89", b"")
        with pytest.raises(ImagekitError):
            reader.read_at(-1, 1)


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    path = tmp_path / "full"
    path.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], purpose="make a small file system", limits=LIMITS)
    try:
        yield path
    finally:
        run(["umount", str(path)], purpose="remove a small file system", limits=LIMITS)


@pytest.mark.process
@pytest.mark.root
def test_a_full_file_system(small_file_system: Path) -> None:
    with opened(small_file_system / "disk") as descriptor:
        with FileWriter(descriptor, is_device=False, capacity_bytes=None) as writer, pytest.raises(NoSpaceError) as caught:
            fill(writer)
        assert caught.value.reason == "NoSpace"


@pytest.fixture
def used_device(tmp_path: Path) -> Iterator[Path]:
    """A block device of 16 MiB and a sector, full of old data."""
    backing = tmp_path / "device"
    backing.write_bytes(b"\xaa" * (16 * MIB + 512))
    completed = run(
        ["losetup", "-f", "--show", str(backing)],
        purpose="make a block device",
        limits=LIMITS,
        accepted_exit_codes=frozenset({0, 1}),
    )
    if completed.exit_code:
        missing("loop devices")
    device = Path(completed.stdout.decode().strip())
    try:
        yield device
    finally:
        run(["losetup", "-d", str(device)], purpose="remove a block device", limits=LIMITS)


@pytest.mark.process
@pytest.mark.root
@pytest.mark.parametrize("virtual_size", [16 * MIB + 512, 9 * MIB + 1536, 512 * KIB])
def test_a_used_device(used_device: Path, virtual_size: int) -> None:
    disk = bytearray(sample_disk(virtual_size, step_bytes=700 * 512))
    disk[0:4] = b"boot"
    image = qcow2_image(bytes(disk), cluster_bits=12 if virtual_size < MIB else 16)
    with opened(used_device) as descriptor, FileWriter(descriptor, is_device=True, capacity_bytes=None) as writer:
        assert writer.capacity_bytes == 16 * MIB + 512
        decode_stream(DiskFormat.QCOW2, ChoppyStream(image), writer)
        held = os.pread(descriptor, min(MIB, virtual_size), 0)
        assert not any(held), "a device that is not finished looks like a disk"
        writer.finish()
        assert bool(os.pread(descriptor, virtual_size, 0) == disk)


@pytest.mark.process
@pytest.mark.root
def test_a_device_that_is_too_small(used_device: Path) -> None:
    with opened(used_device) as descriptor, FileWriter(descriptor, is_device=True, capacity_bytes=None) as writer:
        with pytest.raises(NoSpaceError):
            decode_stream(DiskFormat.QCOW2, ChoppyStream(qcow2_image(sample_disk(17 * MIB))), writer)
        assert os.pread(descriptor, 16, 0) == b"\xaa" * 16
