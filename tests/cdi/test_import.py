"""Whole imports in this process, from files and layouts: what arrives is the disk, or nothing at all."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cdi.job import ImportJob, ImportResult
from cdi.pipeline import run_import
from imagekit.base.errors import ImageError, ImagekitError, NoSpaceError, NotFoundError, UsageError, VerificationError
from imagekit.base.progress import SilentProgress
from imagekit.base.units import MIB
from imagekit.image import Compression, DiskFormat
from registrydisk.access import RegistryAccess
from tests.cdi.interruptions import BreakingProgress
from tests.cdi.layouts import layer, special, write_layout
from tests.support.images import (
    iso_image,
    poke_l2,
    poke_qcow2,
    qcow2_image,
    sample_disk,
    vhd_fixed,
    vmdk_descriptor,
    with_backing_file,
    with_data_file,
)

DISK = sample_disk()
COMPRESSIONS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: bytes,
    Compression.GZIP: lambda content: gzip.compress(content, 1),
    Compression.XZ: lambda content: lzma.compress(content, preset=0),
    Compression.ZSTD: zstandard.compress,
    Compression.BZIP2: bz2.compress,
}


def import_disk(source: Path | str, volume: Path, **options: object) -> ImportResult:
    """Run an import into a directory volume, or another target."""
    job = replace(ImportJob(source=str(source), target=str(volume)), **options)  # type: ignore[arg-type]  # by field name
    return run_import(job, access=RegistryAccess(), progress=SilentProgress())


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.mkdir()
    return path


def file_of(tmp_path: Path, content: bytes, name: str = "source") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("disk_format", [DiskFormat.RAW, DiskFormat.QCOW2, DiskFormat.ISO])
@pytest.mark.parametrize("is_in_image", [False, True], ids=["file", "image"])
def test_formats_and_compressions(
    tmp_path: Path, volume: Path, compression: Compression, disk_format: DiskFormat, is_in_image: bool
) -> None:
    disk = iso_image() if disk_format is DiskFormat.ISO else DISK
    stored = COMPRESSIONS[compression](qcow2_image(disk) if disk_format is DiskFormat.QCOW2 else disk)
    source: Path | str = file_of(tmp_path, stored)
    if is_in_image:
        source = write_layout(tmp_path / "layout", [layer(("disk/a", stored))])
    result = import_disk(source, volume)
    assert (volume / "disk.img").read_bytes().rstrip(b"\0") == disk.rstrip(b"\0")
    assert (result.format, result.compression) == (disk_format, compression)
    assert result.virtual_size_bytes == result.disk_size_bytes == (volume / "disk.img").stat().st_size
    assert os.listdir(volume) == ["disk.img"]


@settings(max_examples=25, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(1, 15), st.binary(min_size=1, max_size=300)), max_size=6),
    tail=st.integers(0, 700),
    asked_kib=st.integers(0, 2048),
)
def test_any_raw_disk_arrives_and_is_grown(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, bytes]], tail: int, asked_kib: int
) -> None:
    scratch = tmp_path_factory.mktemp("raw")
    disk = bytearray(MIB + tail)
    for place, content in pieces:
        disk[place << 16 : (place << 16) + len(content)] = content
    disk[510:512] = b"\x55\xaa"
    size = max(-(-len(disk) // 512) * 512, asked_kib * 1024)
    options = {"size_bytes": asked_kib * 1024} if asked_kib * 1024 >= size else {}
    import_disk(file_of(scratch, bytes(disk)), scratch / "disk", **options)
    arrived = (scratch / "disk").read_bytes()
    assert arrived[: len(disk)] == disk
    assert not arrived[len(disk) :].strip(b"\0")
    assert len(arrived) == (size if options else -(-len(disk) // 512) * 512)


EVIL: dict[str, tuple[bytes, str]] = {
    "backing file": (with_backing_file(qcow2_image(), "/etc/passwd"), "UnsafeImage"),
    "missing backing file": (with_backing_file(qcow2_image(), "/nowhere"), "UnsafeImage"),
    "json backing file": (with_backing_file(qcow2_image(), 'json:{"driver":"nbd"}'), "UnsafeImage"),
    "data file": (with_data_file(qcow2_image(), "/etc/passwd"), "UnsafeImage"),
    "encrypted": (qcow2_image(crypt_method=2), "UnsafeImage"),
    "snapshots": (qcow2_image(nb_snapshots=60_000), "UnsafeImage"),
    "unknown feature": (qcow2_image(incompatible_features=1 << 40), "UnsafeImage"),
    "corrupt": (qcow2_image(incompatible_features=2), "UnsafeImage"),
    "no cluster": (poke_qcow2(qcow2_image(), cluster_bits=3), ""),
    "version 99": (poke_qcow2(qcow2_image(), version=99), ""),
    "L1 beyond the end": (qcow2_image(l1_table_offset=1 << 40), ""),
    "data beyond the end": (poke_l2(qcow2_image(), 0, 1 << 40), ""),
    "two clusters in one place": (poke_l2(qcow2_image(), 1, (1 << 63) | 5 << 16), "UnsafeImage"),
    "300 bytes of qcow2": (qcow2_image()[:300], ""),
    "cut qcow2": (qcow2_image()[:-70_000], ""),
    "vmdk descriptor": (vmdk_descriptor(8, subformat="monolithicFlat", extents=['RW 8 FLAT "/etc/passwd" 0']), ""),
    "iso and qcow2": (iso_image(boot_sector=qcow2_image()[:512]), "UnsafeImage"),
    "qcow 1": (b"QFI\xfb\0\0\0\1" + bytes(2000), "UnsupportedFormat"),
    "LUKS": (b"LUKS\xba\xbe\0\1" + bytes(2000), "UnsupportedFormat"),
    "web page": (b"\n<!DOCTYPE html><html>" + bytes(2000), "UnsupportedFormat"),
    "tar archive": (layer(("disk.raw", DISK)), "UnsupportedFormat"),
    "empty": (b"", "UnsupportedFormat"),
    "too short": (b"\0" * 511, "UnsupportedFormat"),
    "compressed twice": (gzip.compress(gzip.compress(DISK)), "UnsupportedFormat"),
    "compressed nothing": (gzip.compress(b""), "UnsupportedFormat"),
    "cut gzip": (gzip.compress(os.urandom(100_000))[:-50_000], "TruncatedStream"),
    "garbage behind gzip": (gzip.compress(DISK) + b"garbage!", "TrailingGarbage"),
    "damaged gzip": (gzip.compress(DISK)[:-8] + b"\1\2\3\4" + gzip.compress(DISK)[-4:], ""),
    "cut xz": (lzma.compress(DISK)[:-10], "TruncatedStream"),
}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("way", ["file", "checksum", "image"])
def test_evil_images_leave_nothing(tmp_path: Path, volume: Path, name: str, way: str) -> None:
    content, reason = EVIL[name]
    source: Path | str = file_of(tmp_path, content)
    options: dict[str, object] = {}
    if way == "checksum":  # the same bytes, taken as a stream
        options["checksum"] = hashlib.sha256(content).hexdigest()
    elif way == "image":
        source = write_layout(tmp_path / "layout", [layer(("disk/a", content))])
    with pytest.raises(ImagekitError) as caught:
        import_disk(source, volume, **options)
    assert isinstance(caught.value, ImageError | VerificationError)
    if reason and not (name == "empty" and way == "image"):
        assert caught.value.reason == reason
    assert os.listdir(volume) == []


HOSTILE_LAYERS: dict[str, tuple[list[bytes], str]] = {
    "no disk": ([layer(("etc/passwd", b"x"))], "NoDiskInImage"),
    "no layer": ([], "NoDiskInImage"),
    "prefix of a name": ([layer(("disks/a", DISK))], "NoDiskInImage"),
    "two disks": ([layer(("disk/a", DISK), ("disk/b", DISK))], "AmbiguousDisk"),
    "second disk in the base": ([layer(("disk/b", DISK)), layer(("disk/a", DISK))], "AmbiguousDisk"),
    "link": ([layer(special("disk/a", tarfile.SYMTYPE, "/etc/passwd"))], "UnsafeImage"),
    "hard link": ([layer(("x", DISK), special("disk/a", tarfile.LNKTYPE, "x"))], "UnsafeImage"),
    "device": ([layer(special("disk/a", tarfile.BLKTYPE))], "UnsafeImage"),
    "way out": ([layer(("disk/../../a", DISK))], ""),
    "whiteout": ([layer(("disk/a", DISK)), layer(("disk/.wh.a", b""))], "NoDiskInImage"),
    "opaque": ([layer(("disk/a", DISK)), layer(("disk/.wh..wh..opq", b""))], "NoDiskInImage"),
    "cut archive": ([layer(("disk/a", DISK))[:-400_000]], ""),
}


@pytest.mark.parametrize("name", HOSTILE_LAYERS)
def test_hostile_layers_leave_nothing(tmp_path: Path, volume: Path, name: str) -> None:
    layers, reason = HOSTILE_LAYERS[name]
    with pytest.raises(ImagekitError) as caught:
        import_disk(write_layout(tmp_path / "layout", layers), volume)
    if reason:
        assert caught.value.reason == reason
    assert os.listdir(volume) == []


def test_the_upper_layer_wins(tmp_path: Path, volume: Path) -> None:
    layers = [layer(("disk/a", bytes(MIB))), layer(("disk/.wh.a", b""), ("disk/b", DISK))]
    result = import_disk(write_layout(tmp_path / "layout", layers), volume)
    assert (volume / "disk.img").read_bytes() == DISK
    assert result.payload_path == "disk/b"
    assert result.manifest_digest.startswith("sha256:")


@pytest.mark.parametrize("is_layer_content", [True, False], ids=["blob", "archive"])
def test_a_flipped_byte_is_found_and_nothing_is_published(tmp_path: Path, volume: Path, is_layer_content: bool) -> None:
    source = write_layout(
        tmp_path / "layout", [layer(("disk/a", qcow2_image()))], diff_ids=None if is_layer_content else ["sha256:" + "0" * 64]
    )
    if is_layer_content:
        blob = max((tmp_path / "layout/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(blob.read_bytes())
        content[4] ^= 1  # the time in gzip's header: everything else is as it should be
        blob.write_bytes(content)
    with pytest.raises(VerificationError) as caught:
        import_disk(source, volume)
    assert caught.value.reason == "DigestMismatch"
    assert os.listdir(volume) == []


def test_another_platform(tmp_path: Path, volume: Path) -> None:
    source = write_layout(tmp_path / "layout", [layer(("disk/a", DISK))], platform="s390x")
    with pytest.raises(ImageError) as caught:
        import_disk(source, volume)
    assert caught.value.reason == "PlatformMismatch"
    import_disk(source, volume, platform="linux/s390x")
    assert (volume / "disk.img").read_bytes() == DISK


def test_a_bootable_container_is_no_disk(tmp_path: Path, volume: Path) -> None:
    source = write_layout(tmp_path / "layout", [layer(("disk/a", DISK))], config={"Labels": {"containers.bootc": "1"}})
    with pytest.raises(ImageError) as caught:
        import_disk(source, volume)
    assert caught.value.reason == "NoDiskInImage"


def test_checksum(tmp_path: Path, volume: Path) -> None:
    stored = gzip.compress(qcow2_image())
    source = file_of(tmp_path, stored)
    with pytest.raises(VerificationError) as caught:
        import_disk(source, volume, checksum="sha256:" + "0" * 64)
    assert caught.value.reason == "ChecksumMismatch"
    assert os.listdir(volume) == []
    checksum = f"sha256:{hashlib.sha256(stored).hexdigest()}"
    assert import_disk(source, volume, checksum=checksum).checksum == checksum
    assert (volume / "disk.img").read_bytes() == DISK


def test_a_fixed_vhd_that_shows_only_at_its_end_is_not_taken_for_raw(tmp_path: Path, volume: Path) -> None:
    stored = vhd_fixed()
    with pytest.raises(ImageError, match="fixed VHD"):
        import_disk(file_of(tmp_path, gzip.compress(stored)), volume)
    with pytest.raises(ImageError, match="fixed VHD"):
        import_disk(write_layout(tmp_path / "layout", [layer(("disk/a", stored))]), volume)
    assert os.listdir(volume) == []


@pytest.mark.parametrize("way", ["head", "annotation", "compressed raw"])
def test_too_large(tmp_path: Path, volume: Path, way: str) -> None:
    huge = 1 << 50
    options: dict[str, object] = {}
    match way:
        case "annotation":
            layers = [layer(("disk/a", gzip.compress(DISK)))]
            source: Path | str = write_layout(tmp_path / "layout", layers, annotations={"io.imagekit.disk.virtual-size": str(huge)})
        case "compressed raw":
            source, options = file_of(tmp_path, gzip.compress(DISK)), {"size_bytes": huge}
        case _:
            source = file_of(tmp_path, poke_qcow2(qcow2_image(), size=1 << 42, l1_size=1 << 13))
    with pytest.raises(ImagekitError) as caught:
        import_disk(source, volume, **options)
    assert isinstance(caught.value, NoSpaceError)
    assert caught.value.reason == "TooLarge"
    assert os.listdir(volume) == []


def test_a_thin_disk_may_be_larger_than_its_volume(tmp_path: Path, volume: Path) -> None:
    source = file_of(tmp_path, poke_qcow2(qcow2_image(), size=1 << 42, l1_size=1 << 13))
    result = import_disk(source, volume, thin=True)
    assert result.disk_size_bytes == (volume / "disk.img").stat().st_size == 1 << 42
    with (volume / "disk.img").open("rb") as file:
        assert file.read(len(DISK)) == DISK


def test_nonsense_in_an_annotation_is_ignored(tmp_path: Path, volume: Path) -> None:
    for number, text in enumerate(("-1", "1e9", "9" * 30, "", "²")):
        layout = write_layout(
            tmp_path / f"layout{number}", [layer(("disk/a", DISK))], annotations={"io.imagekit.disk.virtual-size": text}
        )
        import_disk(layout, volume, overwrite=True)
    assert (volume / "disk.img").read_bytes() == DISK


def test_preallocated(tmp_path: Path, volume: Path) -> None:
    result = import_disk(file_of(tmp_path, DISK), volume, preallocate=True, size_bytes=4 * MIB)
    assert result.allocated_bytes >= 4 * MIB
    assert (volume / "disk.img").read_bytes() == DISK.ljust(4 * MIB, b"\0")


def test_a_disk_over_itself(tmp_path: Path, volume: Path) -> None:
    disk = file_of(volume, DISK, "disk.img")
    with pytest.raises(UsageError) as caught:
        import_disk(disk, volume)
    assert caught.value.reason == "TargetExists"
    import_disk(disk, volume, overwrite=True)
    assert disk.read_bytes() == DISK


@pytest.mark.parametrize(
    ("source", "options", "error"),
    [
        ("nowhere.qcow2", {}, NotFoundError),
        ("oci:nowhere:1", {}, NotFoundError),
        ("http://", {}, UsageError),
        ("s3://bucket/disk.qcow2", {}, UsageError),
        (".", {}, UsageError),
        ("nowhere.qcow2", {"platform": "linux/arm64"}, UsageError),
        ("oci:nowhere:1", {"checksum": "sha256:" + "0" * 64}, UsageError),
        ("nowhere.qcow2", {"checksum": "sha256:xyz"}, UsageError),
        ("docker://UPPER CASE", {}, UsageError),
    ],
)
def test_what_cannot_be_meant(volume: Path, source: str, options: dict[str, object], error: type[ImagekitError]) -> None:
    with pytest.raises(error) as caught:
        import_disk(source, volume, **options)
    assert caught.value.hint or caught.value.message
    assert os.listdir(volume) == []


def test_the_partial_file_is_no_source_of_its_own_disk(volume: Path) -> None:
    partial = file_of(volume, DISK, ".disk.img.partial")
    with pytest.raises(UsageError):
        import_disk(partial, volume)
    assert partial.read_bytes() == DISK


def test_a_file_that_is_written_meanwhile_is_not_published(tmp_path: Path, volume: Path) -> None:
    source = file_of(tmp_path, DISK)

    class Meddling(BreakingProgress):
        def fail(self) -> None:
            os.utime(source, ns=(1, 1))

    job = ImportJob(source=str(source), target=str(volume))
    with pytest.raises(VerificationError) as caught:
        run_import(job, access=RegistryAccess(), progress=Meddling(len(DISK) // 2))
    assert caught.value.reason == "SourceChanged"
    assert os.listdir(volume) == []


def test_a_link_is_no_source(tmp_path: Path, volume: Path) -> None:
    (tmp_path / "link").symlink_to(file_of(tmp_path, DISK))
    with pytest.raises(UsageError, match="link"):
        import_disk(tmp_path / "link", volume)
