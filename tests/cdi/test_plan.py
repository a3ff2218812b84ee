"""The decision how to import, as a table; no file is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cdi.job import ImportJob
from cdi.plan import Route, SourceObservation, make_plan, rounded_up
from cdi.target import TargetKind, TargetObservation
from imagekit.base.errors import NoSpaceError
from imagekit.base.units import GIB, MIB
from imagekit.image import Compression, DiskFormat

JOB = ImportJob(source="s", target="t")
SOURCE = SourceObservation(
    format=DiskFormat.QCOW2,
    compression=Compression.NONE,
    size_bytes=100 * MIB,
    virtual_size_bytes=GIB,
    announced_size_bytes=None,
    is_seekable=True,
    is_local=True,
    identity="id",
)
TARGET = TargetObservation(kind=TargetKind.FILE, path=Path("t/disk.img"), capacity_bytes=2 * GIB, scratch_free_bytes=2 * GIB)
DEVICE = replace(TARGET, kind=TargetKind.DEVICE, path=Path("/dev/x"))


@pytest.mark.parametrize(
    ("job", "source", "target", "route", "is_resumable"),
    [
        pytest.param(JOB, SOURCE, TARGET, Route.RANDOM, True, id="seekable qcow2"),
        pytest.param(JOB, replace(SOURCE, format=DiskFormat.RAW), TARGET, Route.RANDOM, True, id="seekable raw"),
        pytest.param(JOB, SOURCE, DEVICE, Route.RANDOM, False, id="a device is not resumed"),
        pytest.param(JOB, replace(SOURCE, identity=""), TARGET, Route.RANDOM, False, id="nothing names the content"),
        pytest.param(JOB, replace(SOURCE, is_seekable=False), TARGET, Route.STREAM, False, id="a stream"),
        pytest.param(JOB, replace(SOURCE, compression=Compression.XZ), TARGET, Route.STREAM, False, id="compressed"),
        pytest.param(replace(JOB, checksum="sha256:00"), SOURCE, TARGET, Route.STREAM, False, id="checksum"),
        pytest.param(JOB, replace(SOURCE, format=DiskFormat.VMDK), TARGET, Route.CONVERT, False, id="vmdk"),
        pytest.param(JOB, replace(SOURCE, format=DiskFormat.VHDX, is_seekable=False), DEVICE, Route.CONVERT, False, id="vhdx"),
    ],
)
def test_route(job: ImportJob, source: SourceObservation, target: TargetObservation, route: Route, is_resumable: bool) -> None:
    plan = make_plan(job, source=source, target=target)
    assert (plan.route, plan.is_resumable) == (route, is_resumable)
    assert bool(plan.notes) is (route is Route.CONVERT)


@pytest.mark.parametrize(
    ("source", "job"),
    [
        pytest.param(replace(SOURCE, virtual_size_bytes=2 * GIB + 512), JOB, id="one sector too large"),
        pytest.param(replace(SOURCE, virtual_size_bytes=None, announced_size_bytes=3 * GIB), JOB, id="announced"),
        pytest.param(SOURCE, replace(JOB, size_bytes=2 * GIB + 1), id="the size that was asked for"),
        pytest.param(SOURCE, replace(JOB, size_bytes=GIB - 512), id="asked for less than the disk"),
    ],
)
@pytest.mark.parametrize("target", [TARGET, DEVICE], ids=["file", "device"])
def test_too_large(source: SourceObservation, job: ImportJob, target: TargetObservation) -> None:
    with pytest.raises(NoSpaceError) as caught:
        make_plan(job, source=source, target=target)
    assert caught.value.reason == "TooLarge"
    assert caught.value.hint


def test_what_fits_exactly_fits() -> None:
    plan = make_plan(JOB, source=replace(SOURCE, virtual_size_bytes=2 * GIB), target=TARGET)
    assert plan.capacity_bytes == 2 * GIB


def test_what_the_head_says_counts_and_not_what_was_announced() -> None:
    source = replace(SOURCE, announced_size_bytes=100 * GIB)
    assert make_plan(JOB, source=source, target=TARGET).route is Route.RANDOM


def test_a_thin_disk_may_be_larger_than_the_free_space_but_not_than_a_device() -> None:
    job, source = replace(JOB, thin=True), replace(SOURCE, virtual_size_bytes=5 * GIB)
    assert make_plan(job, source=source, target=TARGET).capacity_bytes is None
    with pytest.raises(NoSpaceError):
        make_plan(job, source=source, target=DEVICE)


def test_a_copy_needs_space_but_a_local_file_needs_no_copy() -> None:
    target = replace(TARGET, scratch_free_bytes=MIB)
    local = replace(SOURCE, format=DiskFormat.VDI)
    assert "in place" in make_plan(JOB, source=local, target=target).notes[0]
    for job, source in (
        (JOB, replace(local, is_local=False)),
        (JOB, replace(local, compression=Compression.GZIP)),
        (replace(JOB, checksum="sha256:00"), local),
    ):
        with pytest.raises(NoSpaceError, match="kept while it is converted"):
            make_plan(job, source=source, target=target)


def test_sizes_are_whole_sectors() -> None:
    assert [rounded_up(size) for size in (0, 1, 512, 513)] == [0, 512, 512, 1024]
    assert make_plan(replace(JOB, size_bytes=GIB + 1), source=SOURCE, target=TARGET).least_size_bytes == GIB + 512
