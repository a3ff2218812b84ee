"""Every pair of formats keeps the disk; evil sources start nothing; a target is whole or not there."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import zstandard

from imagekit.base.errors import ImageError, ImagekitError, NoSpaceError, NotFoundError, UsageError, VerificationError
from imagekit.base.process import ProcessLimits, run
from imagekit.base.progress import SilentProgress
from imagekit.base.units import GIB, KIB, MIB
from imagekit.convert import _unnamed_file as unnamed_file
from imagekit.convert import convert, convert_identified
from imagekit.disk import identify
from imagekit.image import DiskFormat
from imagekit.qemu_img import TargetOptions
from tests.support import images, qemu
from tests.support.commands import command_environment, command_line

SILENT = SilentProgress()
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": lambda content: zstandard.compress(content, 1),
}
SOURCES = {
    "raw": ("raw",),
    "qcow2": ("qcow2",),
    "qcow2 v2": ("qcow2", "-o", "compat=0.10"),
    "qcow2 zlib": ("qcow2", "-c"),
    "qcow2 zstd": ("qcow2", "-c", "-o", "compression_type=zstd,cluster_size=4k"),
    "qcow2 extended": ("qcow2", "-o", "extended_l2=on,cluster_size=128k"),
    "vmdk": ("vmdk",),
    "vmdk stream": ("vmdk", "-o", "subformat=streamOptimized"),
    "vpc": ("vpc", "-o", "force_size=on"),
    "vpc fixed": ("vpc", "-o", "force_size=on,subformat=fixed"),
    "vhdx": ("vhdx",),
    "vdi": ("vdi",),
}
TARGETS = [each for each in DiskFormat if each is not DiskFormat.ISO]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qemu.sample_raw(tmp_path_factory.mktemp("sample") / "sample.img")


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def rewritten(source: Path, target: Path, target_format: DiskFormat, *, is_overwriting: bool = False) -> None:
    convert_identified(
        source,
        target,
        info=identify(source),
        target_format=target_format,
        options=TargetOptions(),
        is_overwriting=is_overwriting,
        progress=SILENT,
    )


@pytest.mark.process
@pytest.mark.parametrize("source_name", SOURCES)
def test_any_format_becomes_raw_and_qcow2(source_name: str, raw: Path, tmp_path: Path) -> None:
    image_format, *options = SOURCES[source_name]
    source = qemu.image_of(raw, tmp_path / "source", image_format, *options)
    for target_format in (DiskFormat.RAW, DiskFormat.QCOW2):
        target = tmp_path / f"target.{target_format}"
        converted = convert(source, target, source_format=DiskFormat(image_format), target_format=target_format, progress=SILENT)
        assert qemu.are_same(target, target_format.driver, raw, "raw")
        assert converted.virtual_size_bytes == 4 * MIB
        assert converted.allocated_bytes < MIB, "holes stay holes"
    assert names(tmp_path) == {"source", "target.raw", "target.qcow2"}


@pytest.mark.process
@pytest.mark.parametrize("target_format", TARGETS)
def test_what_we_write_is_safe_for_us_to_read(target_format: DiskFormat, raw: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    rewritten(raw, target, target_format)
    info = identify(target)
    assert (info.format, info.virtual_size_bytes) == (target_format, 4 * MIB)
    rewritten(target, tmp_path / "back", DiskFormat.RAW)
    assert (tmp_path / "back").read_bytes() == raw.read_bytes()


@pytest.mark.process
@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("source_format", ["raw", "qcow2", "vmdk"])
def test_compressed_sources(packer: str, source_format: str, raw: Path, tmp_path: Path) -> None:
    plain = qemu.image_of(raw, tmp_path / "plain", source_format)
    source = tmp_path / f"source.{packer}"
    source.write_bytes(PACKERS[packer](plain.read_bytes()))
    plain.unlink()
    for target_format in (DiskFormat.RAW, DiskFormat.QCOW2):
        target = tmp_path / f"target.{target_format}"
        convert(source, target, source_format=DiskFormat(source_format), target_format=target_format, progress=SILENT)
        assert qemu.are_same(target, target_format.driver, raw, "raw")
    assert names(tmp_path) == {source.name, "target.raw", "target.qcow2"}


def test_a_compressed_qcow2_becomes_raw_without_a_program_or_a_copy(tmp_path: Path) -> None:
    """The test has no leave to start a program."""
    disk = images.sample_disk()
    (tmp_path / "source.gz").write_bytes(gzip.compress(images.qcow2_image(disk)))
    rewritten(tmp_path / "source.gz", tmp_path / "target", DiskFormat.RAW)
    assert (tmp_path / "target").read_bytes() == disk
    assert names(tmp_path) == {"source.gz", "target"}


@pytest.mark.process
def test_tables_that_come_late_cost_a_file_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Growing a qcow2 moves its first table behind the data; a stream of it cannot be placed from memory alone."""
    raw, source = tmp_path / "raw", tmp_path / "source"
    raw.write_bytes(random.Random(7).randbytes(40 * MIB))
    qemu.image_of(raw, source, "qcow2")
    qemu.qemu_img("resize", "-f", "qcow2", source, "8T")
    packed = tmp_path / "source.gz"
    packed.write_bytes(gzip.compress(source.read_bytes(), 0))
    spills: list[Path] = []

    def spill(target: Path) -> BinaryIO:
        spills.append(target)
        return unnamed_file(target)

    monkeypatch.setattr("imagekit.convert._unnamed_file", spill)
    rewritten(packed, tmp_path / "target", DiskFormat.RAW)
    assert spills == [tmp_path / "target"]
    assert names(tmp_path) == {"raw", "source", "source.gz", "target"}
    assert qemu.are_same(tmp_path / "target", "raw", source, "qcow2")


@pytest.mark.process
@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_targets(compression: str, raw: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    source_format, target_format = DiskFormat.RAW, DiskFormat.QCOW2
    convert(raw, target, source_format=source_format, target_format=target_format, compression=compression, progress=SILENT)
    assert identify(target).details["compression_type"] == compression
    assert identify(target).compressed_share == 1.0
    assert qemu.are_same(target, "qcow2", raw, "raw")


@pytest.mark.process
@pytest.mark.parametrize("size_bytes", [512, 1536, 3713, 4 * MIB + 512])
def test_odd_sizes_become_whole_sectors(size_bytes: int, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * size_bytes)
    rewritten(source, tmp_path / "target", DiskFormat.RAW)
    content = (tmp_path / "target").read_bytes()
    assert len(content) == -(-size_bytes // 512) * 512
    assert content.rstrip(b"\0") == b"x" * size_bytes


@pytest.mark.process
def test_a_huge_hole_costs_nothing(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(64 * GIB)
        file.seek(63 * GIB)
        file.write(b"end")
    rewritten(source, tmp_path / "target", DiskFormat.RAW)
    assert (tmp_path / "target").stat().st_size == 64 * GIB
    assert (tmp_path / "target").stat().st_blocks * 512 < MIB


@pytest.mark.process
def test_a_disk_that_a_guest_wrote_is_copied_as_it_is(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    content = images.with_backing_file(images.qcow2_image(), "/etc/passwd").ljust(4 * MIB, b"\0")
    source.write_bytes(content)
    info = identify(source, stated=DiskFormat.RAW)
    convert_identified(source, target, info=info, target_format=DiskFormat.RAW, options=TargetOptions(), progress=SILENT)
    assert target.read_bytes() == content


EVIL = {
    "backing file": images.with_backing_file(images.qcow2_image(), "/etc/passwd"),
    "data file": images.with_data_file(images.qcow2_image(), "/etc/passwd"),
    "encrypted": images.poke_qcow2(images.qcow2_image(), crypt_method=1),
    "snapshots": images.poke_qcow2(images.qcow2_image(), nb_snapshots=60_000),
}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("packer", [None, *PACKERS])
def test_an_evil_source_starts_nothing_and_leaves_nothing(name: str, packer: str | None, tmp_path: Path) -> None:
    """The test has no leave to start a program."""
    source = tmp_path / "source"
    source.write_bytes(PACKERS[packer](EVIL[name]) if packer else EVIL[name])
    for target_format in (DiskFormat.RAW, DiskFormat.QCOW2):
        with pytest.raises(ImageError):
            convert(source, tmp_path / "target", source_format=DiskFormat.QCOW2, target_format=target_format, progress=SILENT)
    assert names(tmp_path) == {"source"}


def test_another_format_than_the_verdict_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(images.qcow2_image())
    for wrong in (DiskFormat.RAW, DiskFormat.VMDK):
        with pytest.raises(ImageError, match="is qcow2, not"):
            convert(source, tmp_path / "target", source_format=wrong, target_format=DiskFormat.RAW, progress=SILENT)


def test_damage_leaves_nothing(tmp_path: Path) -> None:
    packed = gzip.compress(images.qcow2_image())
    for content in (packed[:-9], packed + b"garbage", packed[:-8] + b"\0" * 8):
        (tmp_path / "source").write_bytes(content)
        with pytest.raises((ImageError, VerificationError)):
            rewritten(tmp_path / "source", tmp_path / "target", DiskFormat.RAW)
        assert names(tmp_path) == {"source"}


def test_a_target_is_replaced_only_with_leave(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(images.qcow2_image(images.sample_disk()))
    target.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists"):
        rewritten(source, target, DiskFormat.RAW)
    assert target.read_bytes() == b"precious"
    rewritten(source, target, DiskFormat.RAW, is_overwriting=True)
    assert target.read_bytes() == images.sample_disk()
    with pytest.raises(NotFoundError):
        rewritten(source, tmp_path / "missing" / "target", DiskFormat.RAW)


@pytest.mark.process
def test_an_image_may_replace_itself(raw: Path, tmp_path: Path) -> None:
    image = qemu.image_of(raw, tmp_path / "image", "qcow2")
    rewritten(image, image, DiskFormat.VMDK, is_overwriting=True)
    assert qemu.are_same(image, "vmdk", raw, "raw")


@pytest.mark.process
def test_a_vmdk_knows_its_own_name(raw: Path, tmp_path: Path) -> None:
    rewritten(raw, tmp_path / "disk.vmdk", DiskFormat.VMDK)
    assert b'SPARSE "disk.vmdk"' in (tmp_path / "disk.vmdk").read_bytes()[: 64 * KIB]


@pytest.mark.process
@pytest.mark.root
@pytest.mark.parametrize("source_name", ["qcow2", "raw", "vmdk.gz"])
def test_a_full_disk_leaves_nothing(source_name: str, raw: Path, tmp_path: Path) -> None:
    source, small = tmp_path / "source", tmp_path / "small"
    qemu.image_of(raw, source, source_name.removesuffix(".gz"))
    if source_name.endswith(".gz"):
        source.write_bytes(gzip.compress(source.read_bytes(), 1))
    small.mkdir()
    limits = ProcessLimits(timeout_seconds=20)
    run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(small)], purpose="make a small disk", limits=limits)
    try:
        with pytest.raises(NoSpaceError):
            rewritten(source, small / "target", DiskFormat.RAW)
        assert names(small) == set()
    finally:
        run(["umount", str(small)], purpose="remove it", limits=limits)


def is_writing(directory: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return any(path.is_file() and path.stat().st_size > 0 for path in directory.rglob("*"))
    return False


@pytest.fixture(scope="module")
def slow_sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """What takes a second to convert: bzip2 to be undone, and noise to be compressed by qemu-img."""
    directory = tmp_path_factory.mktemp("slow")
    noise = random.Random(3).randbytes(3 * MIB)
    (directory / "noise.img").write_bytes(noise * 8)
    (directory / "noise.img.bz2").write_bytes(bz2.compress(noise))
    return {
        "target.img": (directory / "noise.img.bz2", ()),
        "target.qcow2": (directory / "noise.img", ("--compress", "zlib")),
    }


@pytest.mark.process
@pytest.mark.parametrize("target_name", ["target.img", "target.qcow2"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_ended_run_leaves_no_target_and_the_next_one_succeeds(
    target_name: str,
    number: signal.Signals,
    code: int,
    slow_sources: dict[str, tuple[Path, tuple[str, ...]]],
    tmp_path: Path,
) -> None:
    source, options = slow_sources[target_name]
    command = command_line("imagekit", "convert", "--progress", "none", *options, str(source), str(tmp_path / target_name))
    with subprocess.Popen(
        command, env=command_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as process:
        while not is_writing(tmp_path) and process.poll() is None:
            os.sched_yield()
        process.send_signal(number)
    assert process.returncode == code
    assert target_name not in names(tmp_path)
    assert number is signal.SIGKILL or names(tmp_path) == set(), "who can still act leaves nothing"
    subprocess.run(command, env=command_environment(), check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert names(tmp_path) == {target_name}


def test_two_runs_do_not_write_one_target(tmp_path: Path) -> None:
    from imagekit.base.files import atomic_file

    source = tmp_path / "source"
    source.write_bytes(images.qcow2_image())
    with atomic_file(tmp_path / "target") as file:
        with pytest.raises(ImagekitError) as caught:
            rewritten(source, tmp_path / "target", DiskFormat.RAW)
        assert caught.value.reason == "InUse"
        file.write(b"the first run's")
    assert (tmp_path / "target").read_bytes() == b"the first run's"
