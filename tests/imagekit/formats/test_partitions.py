"""GPT and MBR."""

from __future__ import annotations

import pytest

from imagekit.formats.partitions import read_partition_table
from imagekit.image import Partition
from tests.support import images

GPT = images.gpt(("EFI", 34, 99), ("root", 100, 2000))


def test_gpt() -> None:
    table = read_partition_table(GPT)
    kind = str(images.LINUX_FILESYSTEM)
    assert (table.kind, table.problem) == ("gpt", "")
    assert table.partitions == (
        Partition(number=1, start_bytes=34 * 512, size_bytes=66 * 512, kind=kind, label="EFI"),
        Partition(number=2, start_bytes=100 * 512, size_bytes=1901 * 512, kind=kind, label="root"),
    )


def test_gpt_in_sectors_of_4_kib() -> None:
    table = read_partition_table(images.gpt(("root", 34, 99), sector_bytes=4096))
    assert table.partitions[0].start_bytes == 34 * 4096


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (images.poke(GPT, 512 + 24, b"\7"), "checksum of its header"),
        (images.poke(GPT, 1024 + 40, b"\7"), "checksum of its entries"),
        (images.poke(GPT, 512 + 12, b"\xff\xff"), "header length"),
        (images.poke(GPT, 512 + 12, b"\0"), "header length"),
        (GPT[:1024], "not near its header"),
    ],
)
def test_a_damaged_gpt_says_so_and_lists_nothing(image: bytes, words: str) -> None:
    table = read_partition_table(image)
    assert (table.kind, table.partitions) == ("gpt", ())
    assert words in table.problem


def test_mbr() -> None:
    table = read_partition_table(images.mbr((0x83, 2048, 4096), (0x0F, 8192, 1024)))
    assert table.kind == "mbr"
    assert table.partitions == (
        Partition(number=1, start_bytes=2048 * 512, size_bytes=4096 * 512, kind="0x83"),
        Partition(number=2, start_bytes=8192 * 512, size_bytes=1024 * 512, kind="0x0f"),
    )


@pytest.mark.parametrize(
    "head",
    [b"", bytes(512), images.mbr(), images.mbr((0xEE, 1, 99)), images.poke(images.mbr((0x83, 1, 2)), 446, b"\x41")],
)
def test_no_table(head: bytes) -> None:
    assert read_partition_table(head).kind == "none"
