"""Block maps: what is counted, what is wrong, and that a hostile one costs no memory."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from imagekit.formats.tables import count_blocks, read_table
from tests.support.images import BytesReader


@pytest.mark.parametrize(
    ("starts", "count", "rules"),
    [
        ([], 0, []),
        ([0, 1024, 2048], 3, []),
        ([512, 1536, 2560], 3, []),
        ([0, 0], 2, ["cluster-overlap"]),
        ([1024, 1536], 2, ["cluster-overlap"]),
        ([4096], 1, ["outside-file"]),
        ([4096, 1 << 60, 0, 0, 0], 5, ["outside-file", "cluster-overlap"]),
    ],
)
def test_blocks(starts: Iterable[int], count: int, rules: list[str]) -> None:
    counted, findings = count_blocks(iter(starts), spacing_bytes=1024, file_size_bytes=4000)
    assert (counted, [finding.rule for finding in findings]) == (count, rules)


def test_a_file_of_too_many_blocks_is_not_looked_at() -> None:
    counted, findings = count_blocks(iter([0]), spacing_bytes=512, file_size_bytes=1 << 50)
    assert (counted, [finding.rule for finding in findings]) == (0, ["cluster-count"])


def test_tables_have_what_the_file_has() -> None:
    reader = BytesReader(b"\0\0\0\1\0\0\0\2\0\0")
    assert list(read_table(reader, offset_bytes=0, entries=9, entry_bytes=4, byte_order="big")) == [1, 2]
    assert list(read_table(reader, offset_bytes=4, entries=1, entry_bytes=4, byte_order="little")) == [2 << 24]
