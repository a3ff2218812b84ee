"""What qemu-img answers, in full, in part, and as nonsense."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.base.errors import ToolError
from imagekit.qemu_img.results import (
    CheckReport,
    Comparison,
    DiskFacts,
    Extent,
    Measurement,
    ProgressReader,
    parse_check,
    parse_compare,
    parse_info,
    parse_map,
    parse_measure,
)


def test_info() -> None:
    document = {"virtual-size": 1024, "actual-size": 512, "cluster-size": 65536, "format": "qcow2", "unknown": {}}
    expected = DiskFacts(virtual_size_bytes=1024, actual_size_bytes=512, cluster_size_bytes=65536)
    assert parse_info(json.dumps(document).encode()) == expected
    del document["cluster-size"]
    assert parse_info(json.dumps(document).encode()).cluster_size_bytes is None


def test_check() -> None:
    report = parse_check(b'{"check-errors": 0, "leaks": 3, "total-clusters": 16, "allocated-clusters": 4}')
    assert report == CheckReport(is_supported=True, leaks=3, total_clusters=16, allocated_clusters=4)
    assert report.is_clean
    assert not parse_check(b'{"check-errors": 1}').is_clean
    assert not parse_check(b'{"check-errors": 0, "corruptions": 1}').is_clean


def test_map() -> None:
    printed = (
        b'[{"start": 0, "length": 8, "present": false, "zero": true, "data": false},\n'
        b'{"start": 8, "length": 8, "present": true, "zero": false, "data": true, "offset": 4096}]'
    )
    assert parse_map(printed) == (
        Extent(start_bytes=0, length_bytes=8, has_data=False, is_zero=True, offset_bytes=None),
        Extent(start_bytes=8, length_bytes=8, has_data=True, is_zero=False, offset_bytes=4096),
    )


def test_measure() -> None:
    expected = Measurement(required_bytes=1, fully_allocated_bytes=2)
    assert parse_measure(b'{"required": 1, "fully-allocated": 2, "bitmaps": 0}') == expected


def test_compare() -> None:
    assert parse_compare(0, b"Images are identical.\n") == Comparison(is_equal=True)
    printed = b"    (0.00/100%)\rWarning: Image size mismatch!\nContent mismatch at offset 1048576!\n"
    assert parse_compare(1, printed) == Comparison(is_equal=False, first_difference_bytes=1048576)
    with pytest.raises(ToolError, match="named no difference"):
        parse_compare(1, b"prlimit: failed to execute")


@pytest.mark.parametrize("parse", [parse_info, parse_check, parse_map, parse_measure])
@pytest.mark.parametrize(
    "printed", [b"", b"nonsense", b"7", b"[7]", b'{"check-errors": "no"}', b'{"start": true}', b"[" * 100_000, b"\xff"]
)
def test_nonsense_is_an_error(parse: Callable[[bytes], object], printed: bytes) -> None:
    with pytest.raises(ToolError, match="qemu-img"):
        parse(printed)


PRINTED = b"".join(b"    (%d.%02d/100%%)\r" % divmod(number, 100) for number in range(0, 10001, 125)) + b"\n"


@given(st.lists(st.integers(0, len(PRINTED)), max_size=20).map(sorted))
def test_progress_is_whole_however_it_is_cut(cuts: list[int]) -> None:
    advances: list[int] = []
    reader = ProgressReader(total_bytes=1_000_000_007, advance=advances.append)
    for start, end in zip([0, *cuts], [*cuts, len(PRINTED)], strict=True):
        reader.feed(PRINTED[start:end])
    assert sum(advances) == 1_000_000_007
    assert all(step > 0 for step in advances)


def test_progress_never_runs_back_or_over() -> None:
    advances: list[int] = []
    reader = ProgressReader(total_bytes=100, advance=advances.append)
    for printed in (b"(50.00/100%)\r", b"(40.00/100%)\r", b"(999.00/100%)\r", b"(100.00/100%)\r"):
        reader.feed(printed)
    assert advances == [50, 50]


def test_what_is_kept_of_the_output_is_bounded() -> None:
    reader = ProgressReader(total_bytes=100, advance=lambda _: None)
    for _ in range(100):
        reader.feed(b"x" * 4000)
    reader.feed(b"Content mismatch at offset 7!")
    assert len(reader.printed) <= 4096
    assert reader.printed.endswith(b"at offset 7!")
