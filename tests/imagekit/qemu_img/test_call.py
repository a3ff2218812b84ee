"""qemu-img as it is installed here: what it answers, and what its failures become."""

from __future__ import annotations

import contextlib
import fcntl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagekit import qemu_img
from imagekit.base.errors import DeadlineError, ImagekitError, NoSpaceError, ToolError, UsageError
from imagekit.base.process import ProcessLimits, run
from imagekit.base.progress import Phase, SilentProgress
from imagekit.base.units import MIB, TIB
from imagekit.image import DiskFormat
from imagekit.inspection import inspect_file
from imagekit.qemu_img import CheckReport, ImageFile, TargetOptions
from imagekit.qemu_img.call import QUESTION_LIMITS, long_limits
from tests.support import images, qemu

pytestmark = pytest.mark.process
SILENT = SilentProgress()
PLAIN = TargetOptions()
_WRITE_UNSHARED_BYTE = 201  # where QEMU's file driver locks "nobody else may write": its RAW_LOCK_SHARED_BASE + 1


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return qemu.sample_raw(tmp_path / "sample.img")


@pytest.fixture
def qcow2(raw: Path, tmp_path: Path) -> ImageFile:
    return ImageFile(path=qemu.image_of(raw, tmp_path / "sample.qcow2", "qcow2"), format=DiskFormat.QCOW2)


def test_facts_and_map(qcow2: ImageFile) -> None:
    facts = qemu_img.read_facts(qcow2)
    assert (facts.virtual_size_bytes, facts.cluster_size_bytes) == (4 * MIB, 65536)
    extents = qemu_img.read_map(qcow2)
    assert sum(extent.length_bytes for extent in extents) == 4 * MIB
    assert any(extent.has_data and extent.offset_bytes for extent in extents)
    assert any(extent.is_zero and not extent.has_data for extent in extents)


def test_a_file_is_what_it_is_said_to_be(qcow2: ImageFile) -> None:
    taken_literally = ImageFile(path=qcow2.path, format=DiskFormat.RAW)
    assert qemu_img.read_facts(taken_literally).virtual_size_bytes == qcow2.path.stat().st_size
    with pytest.raises(ToolError, match=r"VMDK|vmdk"):
        qemu_img.read_facts(ImageFile(path=qcow2.path, format=DiskFormat.VMDK))


@pytest.mark.parametrize("name", ["a,b=c:\"d' é.img", "nbd:localhost:1", "json:{}", "-f", "50%.img"])
def test_odd_names_are_just_names(name: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw.rename(name)
    source, target = ImageFile(path=Path(name), format=DiskFormat.RAW), Path(f"{name}.out")
    qemu_img.convert(source, target, target_format=DiskFormat.QCOW2, size_bytes=4 * MIB, options=PLAIN, progress=SILENT)
    copied = ImageFile(path=target, format=DiskFormat.QCOW2)
    assert qemu_img.compare(source, copied, size_bytes=4 * MIB, progress=SILENT).is_equal


def test_a_backing_file_is_never_read(raw: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.qcow2"
    qemu.qemu_img("create", "-f", "qcow2", "-b", raw, "-F", "raw", overlay)
    image, target = ImageFile(path=overlay, format=DiskFormat.QCOW2), tmp_path / "out.img"
    assert qemu_img.read_facts(image).virtual_size_bytes == 4 * MIB
    assert not any(extent.has_data for extent in qemu_img.read_map(image))
    qemu_img.convert(image, target, target_format=DiskFormat.RAW, size_bytes=4 * MIB, options=PLAIN, progress=SILENT)
    assert target.stat().st_blocks * 512 < 64 * 1024, "nothing came through from the backing file"


def test_a_parent_that_a_vmdk_hints_at_is_never_read(tmp_path: Path) -> None:
    """The inspector refuses such an image; this is the second lock on the door."""
    (tmp_path / "parent.vmdk").write_bytes(images.vmdk_image())
    hint = images.vmdk_descriptor(2048) + f'parentFileNameHint="{tmp_path}/parent.vmdk"'.encode()
    (tmp_path / "child.vmdk").write_bytes(images.vmdk_image(bytes(MIB), descriptor=hint))
    image, target = ImageFile(path=tmp_path / "child.vmdk", format=DiskFormat.VMDK), tmp_path / "out.img"
    qemu_img.convert(image, target, target_format=DiskFormat.RAW, size_bytes=MIB, options=PLAIN, progress=SILENT)
    assert target.read_bytes() == bytes(MIB)


@pytest.mark.parametrize("creator", [b"win ", b"vpc ", b"odd "])
def test_a_vhd_has_the_size_that_the_inspector_tells(creator: bytes, tmp_path: Path) -> None:
    path = tmp_path / "disk.vhd"
    path.write_bytes(images.sample_disk() + images.vhd_footer(MIB, kind=2, creator=creator))
    found = inspect_file(path)
    assert found.is_safe
    facts = qemu_img.read_facts(ImageFile(path=path, format=found.format))
    assert facts.virtual_size_bytes == found.virtual_size_bytes == MIB


def test_a_missing_backing_file_is_not_missed(raw: Path, tmp_path: Path) -> None:
    qemu.qemu_img("create", "-f", "qcow2", "-b", raw, "-F", "raw", tmp_path / "overlay.qcow2")
    raw.unlink()
    image = ImageFile(path=tmp_path / "overlay.qcow2", format=DiskFormat.QCOW2)
    assert qemu_img.read_facts(image).virtual_size_bytes == 4 * MIB


def test_an_overlay_reads_through_and_knows_its_format(qcow2: ImageFile, raw: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.qcow2"
    qemu_img.create_overlay(overlay, backing=qcow2.path, backing_format=DiskFormat.QCOW2)
    assert b'"backing-filename-format": "qcow2"' in qemu.qemu_img("info", "--output=json", overlay)
    assert qemu.are_same(overlay, "qcow2", raw, "raw")
    qemu_img.create_overlay(tmp_path / "large.qcow2", backing=raw, backing_format=DiskFormat.RAW, size_bytes=8 * MIB)
    large = ImageFile(path=tmp_path / "large.qcow2", format=DiskFormat.QCOW2)
    assert qemu_img.read_facts(large).virtual_size_bytes == 8 * MIB


@pytest.mark.parametrize("target_format", [each for each in DiskFormat if each is not DiskFormat.ISO])
def test_every_format_keeps_size_and_content(target_format: DiskFormat, qcow2: ImageFile, raw: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    qemu_img.convert(qcow2, target, target_format=target_format, size_bytes=4 * MIB, options=PLAIN, progress=SILENT)
    assert qemu_img.read_facts(ImageFile(path=target, format=target_format)).virtual_size_bytes == 4 * MIB
    assert qemu.are_same(target, target_format.driver, raw, "raw")


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_clusters(compression: str, qcow2: ImageFile, raw: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    options = TargetOptions(compression=compression, cluster_size_bytes=128 * 1024)
    qemu_img.convert(qcow2, target, target_format=DiskFormat.QCOW2, size_bytes=4 * MIB, options=options, progress=SILENT)
    found = qemu.qemu_img("info", "--output=json", target)
    assert f'"compression-type": "{compression}"'.encode() in found
    assert b'"cluster-size": 131072' in found
    assert qemu_img.check(ImageFile(path=target, format=DiskFormat.QCOW2), file_size_bytes=MIB).compressed_clusters
    assert qemu.are_same(target, "qcow2", raw, "raw")


class Recorder(SilentProgress):
    """Progress that remembers the sum."""

    def __init__(self) -> None:
        self.done_bytes = 0

    @contextlib.contextmanager
    def phase(self, name: str, total_bytes: int | None = None) -> Iterator[Phase]:
        with super().phase(name, total_bytes) as silent:
            silent.advance = self.count  # type: ignore[method-assign] # listens in
            yield silent

    def count(self, size_bytes: int) -> None:
        self.done_bytes += size_bytes


def test_progress_reaches_the_end(qcow2: ImageFile, tmp_path: Path) -> None:
    recorder = Recorder()
    qemu_img.convert(qcow2, tmp_path / "target", target_format=DiskFormat.RAW, size_bytes=4 * MIB, options=PLAIN, progress=recorder)
    assert recorder.done_bytes == 4 * MIB


def test_differences_are_found_with_their_place(qcow2: ImageFile, raw: Path) -> None:
    with raw.open("r+b") as file:
        file.seek(3 * MIB + 700)
        file.write(b"x")
    found = qemu_img.compare(qcow2, ImageFile(path=raw, format=DiskFormat.RAW), size_bytes=4 * MIB, progress=SILENT)
    assert not found.is_equal
    assert found.first_difference_bytes == 3 * MIB + 512


def test_resize(qcow2: ImageFile) -> None:
    qemu_img.resize(qcow2, size_bytes=16 * MIB, is_shrinking=False)
    assert qemu_img.read_facts(qcow2).virtual_size_bytes == 16 * MIB
    with pytest.raises(ToolError, match="--shrink"):
        qemu_img.resize(qcow2, size_bytes=MIB, is_shrinking=False)
    qemu_img.resize(qcow2, size_bytes=MIB, is_shrinking=True)
    assert qemu_img.read_facts(qcow2).virtual_size_bytes == MIB


def test_an_image_in_use_is_told(raw: Path) -> None:
    image = ImageFile(path=raw, format=DiskFormat.RAW)
    with raw.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_SH, 1, _WRITE_UNSHARED_BYTE)
        with pytest.raises(ImagekitError, match="lock") as caught:
            qemu_img.resize(image, size_bytes=8 * MIB, is_shrinking=False)
    assert caught.value.reason == "InUse"
    assert raw.stat().st_size == 4 * MIB


def set_refcounts(image: Path, *, cluster: int, content: bytes) -> None:
    """Overwrite 16-bit reference counts of a small qcow2, from ``cluster`` on."""
    with image.open("r+b") as file:
        file.seek(48)
        (table_offset,) = struct.unpack(">Q", file.read(8))
        file.seek(table_offset)
        (block_offset,) = struct.unpack(">Q", file.read(8))
        file.seek(block_offset + 2 * cluster)
        file.write(content)


def test_check_finds_corruptions_and_repairs_them(qcow2: ImageFile) -> None:
    size_bytes = qcow2.path.stat().st_size
    assert qemu_img.check(qcow2, file_size_bytes=size_bytes).is_clean
    set_refcounts(qcow2.path, cluster=5, content=b"\0\0")
    report = qemu_img.check(qcow2, file_size_bytes=size_bytes)
    assert (report.corruptions >= 1, report.leaks, report.is_clean) == (True, 0, False)
    assert qemu_img.check(qcow2, file_size_bytes=size_bytes, repair="all").corruptions_fixed >= 1
    assert qemu_img.check(qcow2, file_size_bytes=size_bytes).is_clean


def test_check_finds_leaks_and_repairs_them(qcow2: ImageFile) -> None:
    clusters = -(-qcow2.path.stat().st_size // 65536)
    with qcow2.path.open("r+b") as file:
        file.truncate((clusters + 3) * 65536)
    set_refcounts(qcow2.path, cluster=clusters, content=b"\0\1" * 3)
    size_bytes = qcow2.path.stat().st_size
    report = qemu_img.check(qcow2, file_size_bytes=size_bytes)
    assert (report.corruptions, report.leaks, report.is_clean) == (0, 3, True)
    assert qemu_img.check(qcow2, file_size_bytes=size_bytes, repair="leaks").leaks_fixed == 3


def test_a_format_without_tables_has_nothing_to_check(raw: Path) -> None:
    report = qemu_img.check(ImageFile(path=raw, format=DiskFormat.RAW), file_size_bytes=raw.stat().st_size)
    assert report == CheckReport(is_supported=False)


def test_measure_is_what_convert_needs(qcow2: ImageFile, tmp_path: Path) -> None:
    measured = qemu_img.measure(qcow2, target_format=DiskFormat.QCOW2, options=PLAIN)
    target = tmp_path / "target"
    qemu_img.convert(qcow2, target, target_format=DiskFormat.QCOW2, size_bytes=4 * MIB, options=PLAIN, progress=SILENT)
    assert target.stat().st_size <= measured.required_bytes < measured.fully_allocated_bytes


@pytest.mark.parametrize("target_format", [DiskFormat.VHD, DiskFormat.VHDX, DiskFormat.VDI, DiskFormat.QCOW2])
def test_a_size_that_a_format_cannot_have_is_the_users_mistake(target_format: DiskFormat, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot create a"):
        qemu_img.create(tmp_path / "a", target_format=target_format, size_bytes=7 << 60, options=PLAIN)


def test_a_disk_that_needs_larger_clusters_is_told(qcow2: ImageFile) -> None:
    with pytest.raises(UsageError) as caught:
        qemu_img.resize(qcow2, size_bytes=1 << 60, is_shrinking=False)
    assert "larger clusters" in caught.value.hint


def test_create(tmp_path: Path) -> None:
    qemu_img.create(tmp_path / "a", target_format=DiskFormat.QCOW2, size_bytes=TIB, options=PLAIN)
    image = ImageFile(path=tmp_path / "a", format=DiskFormat.QCOW2)
    assert qemu_img.read_facts(image).virtual_size_bytes == TIB
    full = TargetOptions(preallocation="full")
    qemu_img.create(tmp_path / "b", target_format=DiskFormat.RAW, size_bytes=MIB, options=full)
    assert (tmp_path / "b").stat().st_blocks * 512 >= MIB


def test_a_target_cannot_outgrow_its_disk(raw: Path, tmp_path: Path) -> None:
    source, target = ImageFile(path=raw, format=DiskFormat.RAW), tmp_path / "target"
    with pytest.raises(NoSpaceError) as caught:
        qemu_img.convert(source, target, target_format=DiskFormat.RAW, size_bytes=MIB, options=PLAIN, progress=SILENT)
    assert caught.value.reason == "TooLarge"


@pytest.mark.root
def test_a_full_disk_is_told(raw: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    limits = ProcessLimits(timeout_seconds=20)
    run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(small)], purpose="make a small disk", limits=limits)
    try:
        with pytest.raises(NoSpaceError) as caught:
            qemu_img.convert(
                ImageFile(path=raw, format=DiskFormat.RAW),
                small / "target",
                target_format=DiskFormat.QCOW2,
                size_bytes=4 * MIB,
                options=PLAIN,
                progress=SILENT,
            )
    finally:
        run(["umount", str(small)], purpose="remove it", limits=limits)
    assert caught.value.exit_code == 7


def test_a_files_name_is_no_ending(tmp_path: Path) -> None:
    """Only what the program says tells why it failed, not the names in its command."""
    with pytest.raises(ToolError) as caught:
        qemu_img.read_facts(ImageFile(path=tmp_path / "x: No space left on device", format=DiskFormat.RAW))
    assert caught.value.reason == "ToolFailed"


def test_a_snapshot_bomb_meets_a_limit(tmp_path: Path) -> None:
    """A header that promises 65,535 snapshots of 900-byte names: the program is stopped, not the machine."""
    image = tmp_path / "bomb.qcow2"
    qemu.qemu_img("create", "-f", "qcow2", image, "1M")
    entry = struct.pack(">QIHHIIQII", 65536, 1, 1, 60_000, 0, 0, 0, 0, 0) + b"i" + b"n" * 60_000
    entry += b"\0" * (-len(entry) % 8)
    with image.open("r+b") as file:
        file.seek(60)
        file.write(struct.pack(">IQ", 20_000, 1024 * 1024))
        file.seek(1024 * 1024)
        for _ in range(900):
            file.write(entry)
        file.truncate(1024 * 1024 + len(entry) * 20_000)
    with pytest.raises((ToolError, DeadlineError)):
        qemu_img.read_facts(ImageFile(path=image, format=DiskFormat.QCOW2))


def test_long_work_is_bounded_by_progress_not_by_speed() -> None:
    small, large = long_limits(MIB), long_limits(64 * TIB)
    assert small.stall_seconds == 300
    assert large.stall_seconds is not None
    assert large.stall_seconds > 24 * 3600, "one per cent of 64 TiB at 2 MiB/s"
    assert large.timeout_seconds > 64 * TIB / (2 * MIB)
    assert QUESTION_LIMITS.address_space_bytes == 1024 * MIB
