"""The sample images of ``tests.support.images`` are real ones: qemu-img reads the very disk from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imagekit.base.process import ProcessLimits, run
from imagekit.formats.qcow2 import parse_header
from imagekit.formats.qcow2_guest import read_guest
from tests.support import images
from tests.support.prerequisites import require_program

LIMITS = ProcessLimits(timeout_seconds=60)
BUILDERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "qcow2-v2": ("qcow2", lambda disk: images.qcow2_image(disk, version=2)),
    "qcow2-v3": ("qcow2", images.qcow2_image),
    "qcow2-4k": ("qcow2", lambda disk: images.qcow2_image(disk, cluster_bits=12)),
    "qcow2-zlib": ("qcow2", lambda disk: images.qcow2_image(disk, compression="zlib")),
    "qcow2-zstd": ("qcow2", lambda disk: images.qcow2_image(disk, compression="zstd")),
    "qcow2-extended": ("qcow2", lambda disk: images.qcow2_image(disk, has_extended_l2=True)),
    "vmdk": ("vmdk", images.vmdk_image),
    "vhd-fixed": ("vpc", images.vhd_fixed),
    "vhd-dynamic": ("vpc", images.vhd_dynamic),
    "vdi": ("vdi", images.vdi_image),
    "vhdx": ("vhdx", images.vhdx_image),
}


@pytest.mark.process
@pytest.mark.parametrize("name", BUILDERS)
def test_qemu_reads_the_same_disk(name: str, tmp_path: Path) -> None:
    require_program("qemu-img")
    image_format, build = BUILDERS[name]
    disk = images.sample_disk()
    (tmp_path / "disk").write_bytes(disk)
    (tmp_path / "image").write_bytes(build(disk))
    argv = ["qemu-img", "compare", "-f", image_format, "-F", "raw", str(tmp_path / "image"), str(tmp_path / "disk")]
    run(argv, purpose="compare a sample image with its disk", limits=LIMITS)
    if image_format in ("qcow2", "vdi"):
        run(["qemu-img", "check", "-f", image_format, str(tmp_path / "image")], purpose="check a sample image", limits=LIMITS)


@pytest.mark.parametrize("name", [name for name in BUILDERS if name.startswith("qcow2")])
def test_our_own_view_of_the_guests_disk_is_the_same(name: str) -> None:
    disk = images.sample_disk()
    image = BUILDERS[name][1](disk)
    assert read_guest(parse_header(image), images.BytesReader(image), offset_bytes=512, size_bytes=len(disk)) == disk[512:]
