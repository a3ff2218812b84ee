"""Second opinions: oslo.utils' format inspector on every sample, qemu-img on real images of every format.

Our verdict is at least as strict as oslo.utils', with these known differences: extended L2 and its subclusters are sound
for us, and short files are read as if zeros followed, so that they keep the format they claim.
"""

from __future__ import annotations

import importlib
import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImagekitError
from imagekit.base.process import ProcessLimits, run
from imagekit.image import DiskFormat
from imagekit.inspection import inspect_file, inspect_reader
from tests.support import images
from tests.support.images import BytesReader
from tests.support.prerequisites import missing, require_program

GOOD = images.qcow2_image()
OSLO_NAMES = {"gpt": "raw", "vhd": "vpc"}
SAMPLES = {
    "qcow2": GOOD,
    "qcow2 version 2": images.qcow2_image(version=2),
    "qcow2 zstd": images.qcow2_image(compression="zstd"),
    "qcow2 dirty": images.qcow2_image(incompatible_features=1),
    "qcow2 backing file": images.with_backing_file(GOOD, "/etc/passwd"),
    "qcow2 data file": images.with_data_file(GOOD, "/etc/passwd"),
    "qcow2 unknown feature": images.qcow2_image(incompatible_features=1 << 9),
    "vmdk": images.vmdk_image(),
    "vmdk flat": images.vmdk_descriptor(2048, subformat="monolithicFlat", extents=['RW 2048 FLAT "/etc/passwd" 0']),
    "vmdk vmfs inside": images.vmdk_image(descriptor=images.vmdk_descriptor(2048, subformat="vmfs")),
    "vmdk path inside": images.vmdk_image(descriptor=images.vmdk_descriptor(2048, extents=['RW 2048 SPARSE "/etc/passwd"'])),
    "vhd": images.vhd_dynamic(),
    "vhdx": images.vhdx_image(),
    "vdi": images.vdi_image(),
    "iso": images.iso_image(),
    "gpt": images.gpt(("root", 34, 2000)),
    "mbr": images.mbr((0x83, 2048, 4096)).ljust(1 << 20, b"\0"),
    "raw": images.sample_disk(),
    "luks": b"LUKS\xba\xbe\0\1".ljust(1 << 20, b"\0"),
    "qed": b"QED\0".ljust(1 << 20, b"\0"),
    "iso over qcow2": images.poke(GOOD, 32769, b"CD001"),
    "vdi over qcow2": images.poke(GOOD, 64, b"\x7f\x10\xda\xbe"),
}


def load_oslo() -> Any:
    """The module, or the end of the test: it needs the extra ``image-inspection``."""
    try:
        return importlib.import_module("oslo_utils.imageutils.format_inspector")
    except ImportError:
        missing("oslo.utils[image-inspection]")


def oslo_verdict(image: bytes) -> tuple[str, bool]:
    """The format and whether it is safe, as oslo.utils sees it."""
    format_inspector = load_oslo()
    wrapper = format_inspector.InspectWrapper(io.BytesIO(image))
    try:
        while wrapper.read(65536):
            pass
        wrapper.close()
        inspector = wrapper.format
        assert inspector is not None
        inspector.safety_check()
    except (format_inspector.ImageFormatError, format_inspector.SafetyCheckFailed):
        return "refused", False
    return OSLO_NAMES.get(str(inspector), str(inspector)), True


def our_verdict(image: bytes) -> tuple[str, bool]:
    try:
        info = inspect_reader(BytesReader(image))
    except ImagekitError:
        return "refused", False
    return info.format.value, info.is_safe


@pytest.mark.parametrize("name", SAMPLES)
def test_we_are_at_least_as_strict_as_oslo(name: str) -> None:
    ours, theirs = our_verdict(SAMPLES[name]), oslo_verdict(SAMPLES[name])
    if not theirs[1]:
        assert not ours[1]
    if ours[1]:
        assert ours == theirs


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["qcow2", "vmdk"]), st.integers(0, 1200), st.binary(min_size=1, max_size=8))
def test_we_are_at_least_as_strict_on_changed_images(name: str, place: int, value: bytes) -> None:
    image = images.poke(SAMPLES[name], place, value)
    if our_verdict(image)[1]:
        ours, theirs = our_verdict(image), oslo_verdict(image)
        assert ours == theirs


def test_the_known_differences() -> None:
    extended, short = images.qcow2_image(has_extended_l2=True), images.with_backing_file(GOOD, "/etc/passwd")[:300]
    assert (oslo_verdict(extended), our_verdict(extended)) == (("refused", False), ("qcow2", True))
    assert (oslo_verdict(short), our_verdict(short)) == (("raw", True), ("qcow2", False))


QCOW2_OPTIONS = [
    *(f"cluster_size={size}" for size in ("512", "4k", "64k", "2M")),
    *("compat=0.10", "compression_type=zstd", "extended_l2=on", "lazy_refcounts=on", "refcount_bits=1", "refcount_bits=64"),
    *("preallocation=metadata", "preallocation=falloc", "preallocation=full"),
]
REAL = [
    *(
        ("qcow2", options, packed)
        for options, packed in itertools.product(QCOW2_OPTIONS, (False, True))
        if not (packed and "prealloc" in options)
    ),
    *(("vmdk", f"subformat={subformat}", False) for subformat in ("monolithicSparse", "streamOptimized")),
    *(("vpc", f"subformat={subformat},force_size=on", False) for subformat in ("fixed", "dynamic")),
    *(("vhdx", f"subformat={subformat}", False) for subformat in ("fixed", "dynamic")),
    *(("vdi", f"static={static}", False) for static in ("on", "off")),
]
LIMITS = ProcessLimits(timeout_seconds=60)


def qemu_img(*arguments: str) -> bytes:
    require_program("qemu-img")
    return run(["qemu-img", *arguments], purpose="make or read a real image", limits=LIMITS).stdout


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk whose length is no multiple of any cluster, with data up to its end."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    content = images.poke(images.gpt(("root", 34, 4000), disk_bytes=5 << 20), 100_000, bytes(range(256)) * 2500)
    path.write_bytes(images.poke(content, (5 << 20) - 512, b"end".ljust(1536, b".")))
    return path


@pytest.mark.process
@pytest.mark.parametrize(("image_format", "options", "is_packed"), REAL)
def test_real_images_are_safe_and_read_alike(image_format: str, options: str, is_packed: bool, disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    qemu_img("convert", *(["-c"] if is_packed else []), "-f", "raw", "-O", image_format, "-o", options, str(disk), str(image))
    info = inspect_file(image)
    told = json.loads(qemu_img("info", "-f", image_format, "--output=json", str(image)))
    assert info.findings == ()
    assert info.format.value == image_format
    assert info.virtual_size_bytes == told["virtual-size"]
    if image_format == "qcow2":
        assert info.cluster_size_bytes == told["cluster-size"]
        assert info.allocated_bytes == mapped_bytes(image)
        assert [partition.label for partition in info.partitions] == ["root"]
        assert bool(info.compressed_share) is is_packed


def mapped_bytes(image: Path) -> int:
    extents = json.loads(qemu_img("map", "-f", "qcow2", "--output=json", str(image)))
    return sum(extent["length"] for extent in extents if extent["data"])


@pytest.mark.process
@pytest.mark.parametrize("name", ["qed", "qcow", "parallels"])
def test_real_images_of_refused_formats(name: str, tmp_path: Path) -> None:
    qemu_img("create", "-q", "-f", name, str(tmp_path / "image"), "1M")
    assert our_verdict((tmp_path / "image").read_bytes()) == ("refused", False)


@pytest.mark.process
def test_a_real_overlay_snapshot_and_flat_vmdk_are_refused(disk: Path, tmp_path: Path) -> None:
    overlay, snapshotted, flat = (tmp_path / name for name in ("overlay", "snapshotted", "flat"))
    qemu_img("create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "raw", str(overlay))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", str(disk), str(snapshotted))
    qemu_img("snapshot", "-c", "first", str(snapshotted))
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", str(disk), str(flat))
    found = {path: {finding.rule for finding in inspect_file(path).findings} for path in (overlay, snapshotted, flat)}
    assert found == {overlay: {"backing-file"}, snapshotted: {"snapshots"}, flat: {"vmdk-subformat"}}


@pytest.mark.process
def test_resized_and_discarded_images_are_safe(disk: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", str(disk), str(image))
    qemu_img("resize", "-q", "-f", "qcow2", str(image), "20G")
    qemu_img("resize", "-q", "--shrink", "-f", "qcow2", str(image), "3M")
    info = inspect_file(image)
    assert (info.format, info.findings, info.virtual_size_bytes) == (DiskFormat.QCOW2, (), 3 << 20)
