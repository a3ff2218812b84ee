"""Whole files: found, opened without following links, looked through their compression, and judged."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from imagekit.base.errors import ImageError, NotFoundError, UsageError, VerificationError
from imagekit.image import Compression, DiskFormat
from imagekit.inspection import inspect_file, inspect_reader, require_safe
from tests.support import images
from tests.support.images import BytesReader

CODECS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: gzip.compress,
    Compression.XZ: lzma.compress,
    Compression.BZIP2: bz2.compress,
    Compression.ZSTD: zstandard.compress,
}
SAMPLES = {
    DiskFormat.RAW: images.gpt(("root", 34, 2000)),
    DiskFormat.QCOW2: images.qcow2_image(compression="zlib"),
    DiskFormat.VMDK: images.vmdk_image(),
    DiskFormat.VHD: images.vhd_dynamic(),
    DiskFormat.VHDX: images.vhdx_image(),
    DiskFormat.VDI: images.vdi_image(),
    DiskFormat.ISO: images.iso_image(),
}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "image"


@pytest.mark.parametrize("image_format", SAMPLES)
@pytest.mark.parametrize("codec", CODECS)
def test_a_compressed_image_is_the_image_inside(image: Path, image_format: DiskFormat, codec: Compression) -> None:
    packed = CODECS[codec](SAMPLES[image_format])
    image.write_bytes(packed)
    inside, outside = inspect_reader(BytesReader(SAMPLES[image_format])), inspect_file(image)
    assert (outside.format, outside.compression, outside.file_size_bytes) == (image_format, codec, len(packed))
    assert outside.virtual_size_bytes == inside.virtual_size_bytes
    assert outside.cluster_size_bytes == inside.cluster_size_bytes
    assert (outside.details, outside.findings) == (inside.details, ())
    if image_format is not DiskFormat.RAW:  # holes of the file itself
        assert (outside.allocated_bytes, outside.compressed_share) == (inside.allocated_bytes, inside.compressed_share)


@pytest.mark.parametrize("codec", CODECS)
def test_evil_inside_is_found_through_the_compression(image: Path, codec: Compression) -> None:
    evil = images.poke_l2(images.with_backing_file(SAMPLES[DiskFormat.QCOW2], "/etc/passwd"), 0, 1 << 40)
    image.write_bytes(CODECS[codec](evil))
    assert [finding.rule for finding in inspect_file(image).findings] == ["backing-file"]


def test_a_polyglot_inside_is_refused(image: Path) -> None:
    image.write_bytes(gzip.compress(images.poke(images.qcow2_image(), 32769, b"CD001")))
    with pytest.raises(ImageError, match="several formats"):
        inspect_file(image)


def test_only_one_compression_is_looked_through(image: Path) -> None:
    image.write_bytes(gzip.compress(bz2.compress(SAMPLES[DiskFormat.QCOW2])))
    with pytest.raises(ImageError, match="compressed twice \\(gzip, and bzip2 inside\\)"):
        inspect_file(image)


def test_a_cut_compressed_file_is_an_error(image: Path) -> None:
    image.write_bytes(gzip.compress(SAMPLES[DiskFormat.QCOW2])[:-4])
    with pytest.raises(VerificationError) as caught:
        inspect_file(image)
    assert caught.value.reason == "TruncatedStream"


def test_a_raw_disk_has_what_the_file_system_stores(image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(64 << 20)
        file.write(os.urandom(1 << 20))
    info = inspect_file(image)
    assert info.virtual_size_bytes == 64 << 20
    assert info.allocated_bytes is not None
    assert info.allocated_bytes < 8 << 20
    assert info.is_safe


def test_an_empty_file_is_no_disk(image: Path) -> None:
    image.touch()
    info = inspect_file(image)
    assert (info.format, [finding.rule for finding in info.findings]) == (DiskFormat.RAW, ["virtual-size"])


@pytest.mark.parametrize(
    "build",
    [
        images.qcow2_image,
        lambda disk: images.qcow2_image(disk, compression="zlib"),
        lambda disk: images.qcow2_image(disk, compression="zstd"),
        lambda disk: images.qcow2_image(disk, has_extended_l2=True),
        lambda disk: images.qcow2_image(disk, version=2, cluster_bits=9, compression="zlib"),
        lambda disk: disk,
    ],
)
def test_the_guests_partitions_are_seen(build: Callable[[bytes], bytes]) -> None:
    info = inspect_reader(BytesReader(build(images.gpt(("EFI", 34, 99), ("root", 100, 199), disk_bytes=200 * 1024))))
    assert (info.partition_table, [partition.label for partition in info.partitions]) == ("gpt", ["EFI", "root"])
    assert "partition_table_problem" not in info.details


def test_a_damaged_partition_table_is_told_and_no_danger() -> None:
    info = inspect_reader(BytesReader(images.poke(SAMPLES[DiskFormat.RAW], 512 + 24, b"\7")))
    assert (info.partition_table, info.partitions, info.is_safe) == ("gpt", (), True)
    assert "checksum" in str(info.details["partition_table_problem"])


def test_what_a_reader_may_ignore_is_told_and_no_danger() -> None:
    info = inspect_reader(BytesReader(images.qcow2_image(compatible_features=3, autoclear_features=4, incompatible_features=1)))
    assert info.is_safe
    assert info.details == {
        **{"version": 3, "compression_type": "zlib", "extended_l2": False, "dirty": True},
        **{"compatible_features": 3, "autoclear_features": 4},
    }


def test_links_and_other_things_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(SAMPLES[DiskFormat.QCOW2])
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(UsageError):
            inspect_file(tmp_path / name)
    with pytest.raises(UsageError):
        inspect_file(Path("/dev/zero"))
    with pytest.raises(NotFoundError):
        inspect_file(tmp_path / "missing")


def test_what_an_image_names_is_never_opened(tmp_path: Path, image: Path) -> None:
    os.mkfifo(tmp_path / "trap")  # opening it would hang
    for evil in (
        images.with_backing_file(images.qcow2_image(), str(tmp_path / "trap")),
        images.with_data_file(images.qcow2_image(), str(tmp_path / "trap")),
        images.vmdk_descriptor(2048, subformat="monolithicFlat", extents=[f'RW 2048 FLAT "{tmp_path}/trap" 0']),
    ):
        image.write_bytes(evil)
        assert not inspect_file(image).is_safe


def test_require_safe_tells_every_finding() -> None:
    require_safe(inspect_reader(BytesReader(images.qcow2_image())), what="good.qcow2")
    evil = inspect_reader(BytesReader(images.with_backing_file(images.qcow2_image(crypt_method=2), "/etc/passwd")))
    with pytest.raises(ImageError) as caught:
        require_safe(evil, what="evil.qcow2")
    assert caught.value.reason == "UnsafeImage"
    assert caught.value.exit_code == 8
    for words in ("evil.qcow2", "/etc/passwd", "encrypted"):
        assert words in caught.value.message


def test_a_sparse_header_bomb_costs_nothing(image: Path) -> None:
    """A file that claims to be 8 EiB of tiny clusters: refused by its numbers, not by walking them."""
    image.write_bytes(images.qcow2_image(cluster_bits=9))
    os.truncate(image, 1 << 40)
    assert [finding.rule for finding in inspect_file(image).findings] == ["cluster-count"]
