"""What is said to qemu-img, word for word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.base.errors import UsageError
from imagekit.image import DiskFormat
from imagekit.qemu_img.arguments import (
    ImageFile,
    TargetOptions,
    check_arguments,
    compare_arguments,
    convert_arguments,
    create_arguments,
    info_arguments,
    map_arguments,
    measure_arguments,
    overlay_arguments,
    resize_arguments,
)

QCOW2 = ImageFile(path=Path("/disks/a.qcow2"), format=DiskFormat.QCOW2)
RAW = ImageFile(path=Path("/disks/a.img"), format=DiskFormat.RAW)
SHARED = ImageFile(path=Path("/disks/a.vmdk"), format=DiskFormat.VMDK, is_shared=True)
PLAIN = TargetOptions()
A_QCOW2 = 'json:{"driver":"qcow2","file":{"driver":"file","filename":"/disks/a.qcow2"},"backing":null}'
A_RAW = 'json:{"driver":"raw","file":{"driver":"file","filename":"/disks/a.img"}}'
A_VMDK = 'json:{"driver":"vmdk","file":{"driver":"file","filename":"/disks/a.vmdk"},"backing":null}'
A_VHD = 'json:{"driver":"vpc","file":{"driver":"file","filename":"/disks/a.vhd"},"force_size_calc":"current_size"}'
TARGET = Path("/disks/b")


def converted(source: ImageFile, target_format: DiskFormat, options: TargetOptions = PLAIN) -> list[str]:
    return convert_arguments(source, TARGET, target_format=target_format, options=options)


GOLDEN = {
    "info": (info_arguments(QCOW2), f"info --output=json -f qcow2 {A_QCOW2}"),
    "info shared": (info_arguments(SHARED), f"info --output=json -U -f vmdk {A_VMDK}"),
    "convert to raw": (converted(QCOW2, DiskFormat.RAW), f"convert -p -m 8 -W -f qcow2 -O raw {A_QCOW2} /disks/b"),
    "convert to qcow2": (converted(RAW, DiskFormat.QCOW2), f"convert -p -m 8 -f raw -O qcow2 {A_RAW} /disks/b"),
    "convert compressed": (
        converted(RAW, DiskFormat.QCOW2, TargetOptions(compression="zstd", cluster_size_bytes=2097152)),
        f"convert -p -m 8 -c -f raw -O qcow2 -o compression_type=zstd,cluster_size=2097152 {A_RAW} /disks/b",
    ),
    "convert to vmdk": (
        converted(RAW, DiskFormat.VMDK),
        f"convert -p -m 8 -f raw -O vmdk -o subformat=monolithicSparse {A_RAW} /disks/b",
    ),
    "convert to vhd": (
        converted(RAW, DiskFormat.VHD),
        f"convert -p -m 8 -f raw -O vpc -o subformat=dynamic,force_size=on {A_RAW} /disks/b",
    ),
    "convert to vhdx": (converted(RAW, DiskFormat.VHDX), f"convert -p -m 8 -f raw -O vhdx -o subformat=dynamic {A_RAW} /disks/b"),
    "convert to vdi": (converted(RAW, DiskFormat.VDI), f"convert -p -m 8 -f raw -O vdi {A_RAW} /disks/b"),
    "convert an iso": (
        converted(ImageFile(path=RAW.path, format=DiskFormat.ISO), DiskFormat.RAW),
        f"convert -p -m 8 -W -f raw -O raw {A_RAW} /disks/b",
    ),
    "create": (
        create_arguments(TARGET, target_format=DiskFormat.QCOW2, size_bytes=1024, options=TargetOptions(preallocation="metadata")),
        "create -q -f qcow2 -o preallocation=metadata /disks/b 1024",
    ),
    "overlay": (
        overlay_arguments(TARGET, backing=RAW, size_bytes=4096),
        "create -q -f qcow2 -u -b /disks/a.img -F raw /disks/b 4096",
    ),
    "grow": (resize_arguments(RAW, size_bytes=8192, is_shrinking=False), f"resize -q -f raw {A_RAW} 8192"),
    "shrink": (resize_arguments(QCOW2, size_bytes=512, is_shrinking=True), f"resize -q --shrink -f qcow2 {A_QCOW2} 512"),
    "check": (check_arguments(QCOW2), f"check --output=json -f qcow2 {A_QCOW2}"),
    "repair": (check_arguments(QCOW2, repair="leaks"), f"check --output=json -r leaks -f qcow2 {A_QCOW2}"),
    "check a vhd": (
        check_arguments(ImageFile(path=Path("/disks/a.vhd"), format=DiskFormat.VHD)),
        f"check --output=json -f vpc {A_VHD}",
    ),
    "map": (map_arguments(QCOW2), f"map --output=json -f qcow2 {A_QCOW2}"),
    "measure": (
        measure_arguments(RAW, target_format=DiskFormat.QCOW2, options=PLAIN),
        f"measure --output=json -f raw -O qcow2 {A_RAW}",
    ),
    "compare": (compare_arguments(QCOW2, RAW), f"compare -p -f qcow2 -F raw {A_QCOW2} {A_RAW}"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_arguments(name: str) -> None:
    arguments, expected = GOLDEN[name]
    assert " ".join(arguments) == f"qemu-img {expected}"


@pytest.mark.parametrize("name", GOLDEN)
def test_every_call_names_a_format(name: str) -> None:
    arguments, _ = GOLDEN[name]
    assert "-f" in arguments


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1))
def test_any_name_is_a_name_and_nothing_else(name: str) -> None:
    image = ImageFile(path=Path("/disks") / name, format=DiskFormat.QCOW2)
    prefix, _, document = image.description().partition(":")
    assert prefix == "json"
    assert json.loads(document)["file"] == {"driver": "file", "filename": str(Path("/disks") / name)}
    assert document.isascii()


@pytest.mark.parametrize("name", ["nbd:localhost:10809", "json:{}", "-f", "file:/etc/passwd", "a,backing.file=b"])
def test_relative_names_become_absolute(name: str) -> None:
    source = ImageFile(path=Path(name), format=DiskFormat.RAW)
    *_, described, target = convert_arguments(source, Path(name), target_format=DiskFormat.RAW, options=PLAIN)
    assert target == str(Path.cwd() / name)
    assert json.loads(described.removeprefix("json:"))["file"]["filename"] == str(Path.cwd() / name)


def test_a_name_that_json_cannot_carry_is_refused() -> None:
    with pytest.raises(UsageError, match="not UTF-8"):
        ImageFile(path=Path("/disks/\udcff"), format=DiskFormat.RAW).description()


@pytest.mark.parametrize(
    ("options", "target_format", "said"),
    [
        (TargetOptions(compression="zlib"), DiskFormat.RAW, "only qcow2 has compression"),
        (TargetOptions(cluster_size_bytes=65536), DiskFormat.VMDK, "only qcow2 has compression and a cluster size"),
        (TargetOptions(preallocation="full"), DiskFormat.VDI, "preallocated"),
        (TargetOptions(preallocation="metadata"), DiskFormat.RAW, "no metadata"),
        (PLAIN, DiskFormat.ISO, "an ISO cannot be written"),
    ],
)
def test_options_that_a_format_lacks_are_refused(options: TargetOptions, target_format: DiskFormat, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        convert_arguments(RAW, TARGET, target_format=target_format, options=options)


@pytest.mark.parametrize("size", [0, -512, 256, 511, 65537, 4 * 1024**2])
def test_cluster_sizes_are_powers_of_two(size: int) -> None:
    with pytest.raises(UsageError, match="cluster"):
        TargetOptions(cluster_size_bytes=size)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(UsageError, match="compression"):
        TargetOptions(compression="lzma,backing_file=/etc/passwd")
    with pytest.raises(UsageError, match="preallocate"):
        TargetOptions(preallocation="some")


def test_a_block_device_has_its_own_driver() -> None:
    device = ImageFile(path=Path("/dev/sdb"), format=DiskFormat.RAW, is_device=True)
    assert device.description() == 'json:{"driver":"raw","file":{"driver":"host_device","filename":"/dev/sdb"}}'
