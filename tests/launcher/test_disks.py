"""What the user names becomes a disk with a known format; what a guest wrote decides nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagekit.base.errors import ImageError, NotFoundError, UsageError
from imagekit.base.process import ProcessLimits, run
from imagekit.image import DiskFormat
from launcher.disks import FoundDisk, find_volume, is_image, machine_disk
from launcher.spec import Base, Bus

QCOW2_MAGIC = b"QFI\xfb"


IMAGES = ("docker://quay.io/a/b:1", "oci:dir:tag", "oci-archive:f", "docker-archive:f", "docker-daemon:a")
PATHS = ("./volume", "/a:b", "a", "ocean:b", "docker")


def test_images_have_a_transport() -> None:
    assert all(map(is_image, IMAGES))
    assert not any(map(is_image, PATHS))


@pytest.mark.parametrize("name", ["disk.img", "disk/fedora.img"])
def test_disk_in_a_directory_is_raw_whatever_the_guest_wrote(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(QCOW2_MAGIC + bytes(1020))
    assert find_volume(tmp_path) == FoundDisk(path=path, format=DiskFormat.RAW)
    with pytest.raises(UsageError, match="always raw"):
        find_volume(tmp_path, disk_format=DiskFormat.QCOW2)


def test_directory_needs_one_disk(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no disk\.img"):
        find_volume(tmp_path)
    (tmp_path / "disk").mkdir()
    for name in ("a.img", "b.img"):
        (tmp_path / "disk" / name).write_bytes(bytes(512))
    with pytest.raises(UsageError, match=r"2 disks .*: a\.img, b\.img"):
        find_volume(tmp_path)
    with pytest.raises(NotFoundError, match="there is no volume"):
        find_volume(tmp_path / "absent")


def test_link_in_place_of_the_folder_of_disks_is_refused(tmp_path: Path) -> None:
    volume, elsewhere = tmp_path / "volume", tmp_path / "elsewhere"
    for directory in (volume, elsewhere):
        directory.mkdir()
    (elsewhere / "another.img").write_bytes(bytes(512))
    (volume / "disk").symlink_to(elsewhere)
    with pytest.raises(UsageError, match="disk is a symbolic link"):
        find_volume(volume)


def test_name_without_a_transport_gets_a_hint() -> None:
    with pytest.raises(NotFoundError) as caught:
        find_volume(Path("quay.io/me/fedora:42"))
    assert "docker://" in caught.value.hint


def test_file_is_what_the_inspector_or_the_user_says(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1024))
    assert find_volume(path).format is DiskFormat.RAW
    assert find_volume(path, disk_format=DiskFormat.QCOW2).format is DiskFormat.QCOW2


@pytest.mark.process
@pytest.mark.parametrize(("image_format", "options"), [("qcow2", []), ("vmdk", []), ("qcow2", ["-b", "base.raw", "-F", "raw"])])
def test_real_files(tmp_path: Path, image_format: str, options: list[str]) -> None:
    (tmp_path / "base.raw").write_bytes(bytes(1 << 20))
    path = tmp_path / "disk"
    size = [] if options else ["1M"]
    command = ["qemu-img", "create", "-q", "-f", image_format, *options, str(path), *size]
    run(command, purpose="make a disk", limits=ProcessLimits(timeout_seconds=30))
    if options:
        with pytest.raises(ImageError, match="base"):
            find_volume(path)
    elif image_format == "vmdk":
        with pytest.raises(ImageError, match="vmdk"):
            find_volume(path)
    else:
        assert find_volume(path).format is DiskFormat.QCOW2


@pytest.mark.process
def test_format_that_the_user_names_makes_no_image_safe(tmp_path: Path) -> None:
    secret, path = tmp_path / "secret", tmp_path / "disk"
    secret.write_bytes(bytes(1 << 20))
    options = f"data_file={secret},data_file_raw=on"
    command = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(path), "1M"]
    run(command, purpose="make a disk", limits=ProcessLimits(timeout_seconds=30))
    with pytest.raises(ImageError, match="external data file"):
        find_volume(path, disk_format=DiskFormat.QCOW2)
    assert find_volume(path, disk_format=DiskFormat.RAW).format is DiskFormat.RAW


def test_compressed_file_is_refused_with_a_way_out(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "disk.img.gz"
    path.write_bytes(gzip.compress(bytes(4096)))
    with pytest.raises(ImageError, match="compressed with gzip") as caught:
        find_volume(path)
    assert "cdi import" in caught.value.hint


def test_volume_is_booted_as_it_is(tmp_path: Path) -> None:
    found = FoundDisk(path=tmp_path / "disk.img", format=DiskFormat.RAW)
    disk = machine_disk(found, bus=Bus.SCSI, overlay=tmp_path / "unused", is_ephemeral=True)
    assert (disk.path, disk.bus, disk.base, disk.is_readonly, disk.is_ephemeral) == (str(found.path), Bus.SCSI, None, False, False)
    assert not (tmp_path / "unused").exists()


def test_iso_is_a_drive(tmp_path: Path) -> None:
    found = FoundDisk(path=tmp_path / "x.iso", format=DiskFormat.ISO)
    disk = machine_disk(found, bus=Bus.VIRTIO, overlay=tmp_path / "unused", is_ephemeral=True)
    assert (disk.is_cdrom, disk.bus) == (True, Bus.SATA)


@pytest.mark.process
def test_template_gets_an_overlay_that_is_kept(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(bytes(1 << 20))
    found = FoundDisk(path=base, format=DiskFormat.RAW, is_template=True)
    first = machine_disk(found, bus=Bus.VIRTIO, overlay=tmp_path / "overlay", is_ephemeral=False)
    written = (tmp_path / "overlay").stat()
    assert first.base == Base(path=str(base), format=DiskFormat.RAW)
    assert first.format is DiskFormat.QCOW2
    assert machine_disk(found, bus=Bus.VIRTIO, overlay=tmp_path / "overlay", is_ephemeral=False) == first
    assert (tmp_path / "overlay").stat().st_mtime_ns == written.st_mtime_ns
