"""Bitmaps of qcow2: a reader holds them all in memory, so what they need is bounded."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from imagekit.base.units import GIB, MIB
from imagekit.inspection import inspect_file, inspect_reader
from tests.support import images, qemu

BITMAPS = 0x23852875


def with_bitmaps(count: int, *, granularity_bits: int, size_bytes: int) -> bytes:
    """An image of an empty disk with this many bitmaps, all of them ones."""
    directory = struct.pack(">QIIBBHI2s6x", 65536, 1, 2, 1, granularity_bits, 2, 0, b"ab") * count
    image = images.poke_qcow2(images.qcow2_image(bytes(512 * MIB)), size=size_bytes)
    image = images.with_extension(image, BITMAPS, struct.pack(">IIQQ", count, 0, len(directory), len(image)))
    return image + directory


def rules_of(image: bytes) -> set[str]:
    return {finding.rule for finding in inspect_reader(images.BytesReader(image)).findings}


@pytest.mark.parametrize(("count", "granularity_bits", "is_safe"), [(1, 9, True), (1, 16, True), (2048, 9, True), (2049, 9, False)])
def test_memory_of_bitmaps_is_bounded(count: int, granularity_bits: int, is_safe: bool) -> None:
    """512 MiB with a bit for each 512 bytes take 128 KiB."""
    image = with_bitmaps(count, granularity_bits=granularity_bits, size_bytes=GIB // 2)
    assert rules_of(image) == (set() if is_safe else {"bitmaps"})


@pytest.mark.process
def test_bitmaps_of_a_backup_are_no_objection(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    qemu.qemu_img("create", "-f", "qcow2", path, "1T")
    for name in ("monday", "tuesday"):
        qemu.qemu_img("bitmap", "--add", path, name)
    assert inspect_file(path).is_safe
