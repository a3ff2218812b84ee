"""Disks in place: the verdict decides the format, the user's word raw is taken literally, nothing is cut by mistake."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from imagekit.base.errors import ImageError, NotFoundError, UsageError, VerificationError
from imagekit.base.process import run
from imagekit.base.progress import SilentProgress
from imagekit.base.units import GIB, MIB
from imagekit.convert import convert
from imagekit.disk import (
    check_disk,
    compare_disks,
    create_disk,
    identify,
    identify_plain,
    measure_disk,
    require_writable,
    resize_disk,
)
from imagekit.image import Compression, DiskFormat
from imagekit.qemu_img import TargetOptions
from tests.support import images, qemu

PLAIN = TargetOptions()
SILENT = SilentProgress()
EVIL = {
    "backing file": images.with_backing_file(images.qcow2_image(), "/etc/passwd"),
    "backing protocol": images.with_backing_file(images.qcow2_image(), "nbd:127.0.0.1:1"),
    "data file": images.with_data_file(images.qcow2_image(), "/etc/passwd"),
    "encrypted": images.poke_qcow2(images.qcow2_image(), crypt_method=1),
    "flat vmdk": b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 8 FLAT "/etc/passwd" 0\n',
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "disk"


@pytest.mark.parametrize("name", EVIL)
def test_an_evil_image_reaches_no_program(name: str, path: Path) -> None:
    """The test has no leave to start one."""
    path.write_bytes(EVIL[name])
    for refused in (
        lambda: identify(path),
        lambda: resize_disk(path, size="1G"),
        lambda: check_disk(path),
        lambda: measure_disk(path, target_format=DiskFormat.RAW, options=PLAIN),
        lambda: compare_disks(path, path, progress=SILENT),
    ):
        with pytest.raises(ImageError):
            refused()
    assert path.read_bytes() == EVIL[name]


def test_a_stated_format_has_to_agree(path: Path) -> None:
    path.write_bytes(images.qcow2_image())
    assert identify(path, stated=DiskFormat.QCOW2).format is DiskFormat.QCOW2
    with pytest.raises(ImageError, match="is qcow2, not vmdk"):
        identify(path, stated=DiskFormat.VMDK)


@pytest.mark.parametrize("content", [*EVIL.values(), gzip.compress(b"\0" * 512, mtime=0), b"x"])
def test_raw_by_the_users_word_is_not_looked_at(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    info = identify(path, stated=DiskFormat.RAW)
    assert (info.format, info.compression, info.virtual_size_bytes) == (DiskFormat.RAW, Compression.NONE, len(content))


def test_what_is_not_there_or_no_file_is_told(path: Path, tmp_path: Path) -> None:
    path.symlink_to("/etc/passwd")
    for stated in (None, DiskFormat.RAW):
        with pytest.raises(NotFoundError):
            identify(tmp_path / "missing", stated=stated)
        with pytest.raises(UsageError):
            identify(path, stated=stated)


def test_a_compressed_file_is_not_changed_in_place(path: Path) -> None:
    path.write_bytes(gzip.compress(images.qcow2_image()))
    assert identify(path).compression is Compression.GZIP
    with pytest.raises(UsageError, match="compressed with gzip"):
        identify_plain(path)


def test_of_two_images_the_damaged_one_is_named(path: Path, tmp_path: Path) -> None:
    path.write_bytes(images.qcow2_image())
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(images.qcow2_image())[:-1])
    with pytest.raises(VerificationError) as caught:
        compare_disks(path, cut, progress=SILENT)
    assert caught.value.message == f"{cut}: the gzip stream ends early"


@pytest.mark.process
def test_a_disk_that_a_guest_wrote_stays_raw(path: Path) -> None:
    """The guest's qcow2 header must neither be believed, nor its file opened, nor its bytes be touched."""
    content = EVIL["backing file"].ljust(MIB, b"\0")
    path.write_bytes(content)
    with pytest.raises(ImageError):
        resize_disk(path, size="4M")
    resized = resize_disk(path, size="4M", stated=DiskFormat.RAW)
    assert (resized.format, resized.old_size_bytes, resized.new_size_bytes) == (DiskFormat.RAW, MIB, 4 * MIB)
    assert path.read_bytes() == content + b"\0" * 3 * MIB


@pytest.mark.process
@pytest.mark.parametrize(("size", "expected"), [("8M", 8 * MIB), ("+1M", 5 * MIB), ("4M", 4 * MIB)])
def test_a_disk_grows(size: str, expected: int, path: Path, tmp_path: Path) -> None:
    raw = qemu.sample_raw(tmp_path / "raw")
    qemu.image_of(raw, path, "qcow2")
    resized = resize_disk(path, size=size)
    assert (resized.format, resized.old_size_bytes, resized.new_size_bytes) == (DiskFormat.QCOW2, 4 * MIB, expected)
    assert identify(path).virtual_size_bytes == expected
    assert qemu.are_same(path, "qcow2", raw, "raw")


@pytest.mark.process
def test_a_disk_shrinks_only_with_leave(path: Path, tmp_path: Path) -> None:
    qemu.image_of(qemu.sample_raw(tmp_path / "raw"), path, "qcow2")
    with pytest.raises(UsageError, match=r"would shrink from 4\.0 MiB to 1\.0 MiB") as caught:
        resize_disk(path, size="1M")
    assert "--shrink" in caught.value.hint
    resize_disk(path, size="1M", is_shrinking_allowed=True)
    assert identify(path).virtual_size_bytes == MIB


@pytest.mark.process
def test_a_partition_is_never_cut(path: Path) -> None:
    start, length = 2048, 2048  # sectors: from 1 MiB to 2 MiB
    path.write_bytes(images.mbr((0x83, start, length)).ljust(4 * MIB, b"\0"))
    with pytest.raises(UsageError, match=r"partition 1 reaches to 2\.0 MiB"):
        resize_disk(path, size="1536K", is_shrinking_allowed=True)
    assert path.stat().st_size == 4 * MIB
    resize_disk(path, size="2M", is_shrinking_allowed=True)
    assert path.stat().st_size == 2 * MIB


def test_a_partition_is_not_cut_because_the_disk_was_said_to_be_raw(path: Path) -> None:
    path.write_bytes(images.mbr((0x83, 2048, 2048)).ljust(4 * MIB, b"\0"))
    with pytest.raises(UsageError, match="partition 1 reaches to"):
        resize_disk(path, size="1536K", stated=DiskFormat.RAW, is_shrinking_allowed=True)
    assert path.stat().st_size == 4 * MIB


@pytest.mark.parametrize("size", ["0", "100", "+1", "-1M", "1X", "", "8E", "+8E"])
def test_impossible_sizes_are_refused(size: str, path: Path) -> None:
    path.write_bytes(b"\0" * MIB)
    with pytest.raises(UsageError):
        resize_disk(path, size=size, is_shrinking_allowed=True)
    assert path.stat().st_size == MIB


@pytest.mark.parametrize(("image", "name"), [(images.vmdk_image(), "vmdk"), (images.vdi_image(), "vdi")])
def test_a_format_that_cannot_be_resized_is_told(image: bytes, name: str, path: Path) -> None:
    path.write_bytes(image)
    with pytest.raises(ImageError, match=f"{name} cannot be resized"):
        resize_disk(path, size="1G")


@pytest.mark.process
@pytest.mark.parametrize("target_format", [DiskFormat.RAW, DiskFormat.QCOW2, DiskFormat.VMDK, DiskFormat.VHDX, DiskFormat.VDI])
def test_an_empty_disk_is_made_and_is_safe(target_format: DiskFormat, path: Path) -> None:
    create_disk(path, target_format=target_format, size_bytes=3 * GIB, options=PLAIN, is_overwriting=False)
    info = identify(path)
    assert (info.format, info.virtual_size_bytes) == (target_format, 3 * GIB)
    assert path.stat().st_blocks * 512 < 16 * MIB
    with pytest.raises(UsageError, match="exists"):
        create_disk(path, target_format=target_format, size_bytes=GIB, options=PLAIN, is_overwriting=False)


@pytest.mark.parametrize("name", ["a:b.vmdk", 'a"b.vmdk', "a\\b.vmdk", "\N{LATIN SMALL LETTER E WITH ACUTE}.vmdk", "a\nb.vmdk"])
def test_a_name_that_a_vmdk_cannot_hold_is_refused(name: str, path: Path, tmp_path: Path) -> None:
    """qemu-img would write an image that is unsafe by our own rules."""
    path.write_bytes(images.qcow2_image())
    target = tmp_path / name
    with pytest.raises(UsageError, match="written into the image"):
        create_disk(target, target_format=DiskFormat.VMDK, size_bytes=MIB, options=PLAIN, is_overwriting=False)
    with pytest.raises(UsageError, match="written into the image"):
        convert(path, target, source_format=DiskFormat.QCOW2, target_format=DiskFormat.VMDK, progress=SILENT)


@pytest.mark.process
def test_a_vmdk_with_spaces_in_its_name_is_safe(tmp_path: Path) -> None:
    target = tmp_path / "a disk, or = two.vmdk"
    create_disk(target, target_format=DiskFormat.VMDK, size_bytes=MIB, options=PLAIN, is_overwriting=False)
    assert identify(target).is_safe


@pytest.mark.process
def test_check_says_what_is_damaged(path: Path, tmp_path: Path) -> None:
    qemu.image_of(qemu.sample_raw(tmp_path / "raw"), path, "qcow2")
    assert check_disk(path).is_clean
    assert not check_disk(tmp_path / "raw").is_supported


@pytest.mark.process
def test_a_repair_does_not_make_the_file_endless(path: Path) -> None:
    """The refcount table names a block at 8 TiB, and to reach it qemu-img would make the file as long."""
    image = images.qcow2_image()
    table = int.from_bytes(image[48:56], "big")
    path.write_bytes(images.poke(image, table + 8, (1 << 43).to_bytes(8, "big")))
    assert not check_disk(path).is_clean
    check_disk(path, repair="all")
    assert path.stat().st_size < 4 * MIB
    assert check_disk(path).is_clean


@pytest.mark.process
def test_a_disk_without_an_end_is_not_read(path: Path, tmp_path: Path) -> None:
    qemu.qemu_img("create", "-f", "qcow2", "-o", "cluster_size=2M", path, "1P")
    with pytest.raises(ImageError) as caught:
        compare_disks(path, path, progress=SILENT)
    assert caught.value.reason == "TooLarge"
    with pytest.raises(ImageError, match=r"larger than the limit of 64\.0 TiB"):
        convert(path, tmp_path / "t", source_format=DiskFormat.QCOW2, target_format=DiskFormat.QCOW2, progress=SILENT)


@pytest.mark.process
def test_disks_are_compared_as_guests_see_them(path: Path, tmp_path: Path) -> None:
    raw = qemu.sample_raw(tmp_path / "raw")
    qemu.image_of(raw, path, "vmdk")
    assert compare_disks(raw, path, progress=SILENT).is_equal
    resize_disk(raw, size="8M")
    longer = compare_disks(raw, path, progress=SILENT)
    assert (longer.is_equal, longer.first_size_bytes, longer.second_size_bytes) == (True, 8 * MIB, 4 * MIB)
    strict = compare_disks(raw, path, is_strict=True, progress=SILENT)
    assert (strict.is_equal, strict.first_difference_bytes) == (False, None)
    with raw.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"x")
    different = compare_disks(raw, path, progress=SILENT)
    assert (different.is_equal, different.first_difference_bytes) == (False, 5 * MIB)


@pytest.mark.process
def test_a_literal_comparison_sees_the_file_itself(path: Path, tmp_path: Path) -> None:
    path.write_bytes(images.qcow2_image())
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    raw = DiskFormat.RAW
    compared = compare_disks(path, copy, first_stated=raw, second_stated=raw, is_strict=True, progress=SILENT)
    assert (compared.is_equal, compared.first_size_bytes) == (True, path.stat().st_size)


@pytest.mark.process
def test_measure(path: Path, tmp_path: Path) -> None:
    qemu.image_of(qemu.sample_raw(tmp_path / "raw"), path, "qcow2")
    assert measure_disk(path, target_format=DiskFormat.RAW, options=PLAIN).required_bytes == 4 * MIB
    small = measure_disk(path, target_format=DiskFormat.QCOW2, options=TargetOptions(cluster_size_bytes=512))
    large = measure_disk(path, target_format=DiskFormat.QCOW2, options=TargetOptions(cluster_size_bytes=2 * MIB))
    assert small.required_bytes < large.required_bytes
    with pytest.raises(UsageError, match="cannot be foreseen"):
        measure_disk(path, target_format=DiskFormat.VMDK, options=PLAIN)


def test_what_may_be_replaced(path: Path, tmp_path: Path) -> None:
    require_writable(path, is_overwriting=False)
    path.write_bytes(b"")
    require_writable(path, is_overwriting=True)
    with pytest.raises(UsageError, match="exists"):
        require_writable(path, is_overwriting=False)
    (tmp_path / "link").symlink_to(path)
    for odd in (tmp_path / "link", tmp_path, Path("/dev/null")):
        with pytest.raises(UsageError, match="not a regular file"):
            require_writable(odd, is_overwriting=True)


@pytest.mark.process
@pytest.mark.root
def test_a_block_device_is_a_disk_too(tmp_path: Path) -> None:
    raw = qemu.sample_raw(tmp_path / "raw")
    device = Path(run(["losetup", "--find", "--show", str(raw)], purpose="attach", limits=qemu.LIMITS).stdout.decode().strip())
    try:
        assert identify(device, stated=DiskFormat.RAW).virtual_size_bytes == 4 * MIB
        rewritten = tmp_path / "rewritten"
        convert(device, rewritten, source_format=DiskFormat.RAW, target_format=DiskFormat.QCOW2, progress=SILENT)
        assert compare_disks(rewritten, device, progress=SILENT).is_equal
        assert measure_disk(device, target_format=DiskFormat.RAW, options=PLAIN).required_bytes == 4 * MIB
        with pytest.raises(UsageError, match="block device"):
            resize_disk(device, size="+1M")
        with pytest.raises(UsageError, match="not a regular file"):
            create_disk(device, target_format=DiskFormat.RAW, size_bytes=MIB, options=PLAIN, is_overwriting=True)
    finally:
        run(["losetup", "--detach", str(device)], purpose="detach", limits=qemu.LIMITS)
