"""Sizes and durations as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.base.errors import UsageError
from imagekit.base.units import GIB, KIB, MIB, TIB, format_duration, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", MIB),
        ("512b", 512),
        ("10G", 10 * GIB),
        ("10Gi", 10 * GIB),
        ("10GiB", 10 * GIB),
        (" 1.5 GiB ", 3 * GIB // 2),
        ("0.5k", 512),
        ("2t", 2 * TIB),
        ("8E", 8 * 1024**6),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "-1", "+1G", "1e9", "1 000", "0x10", "1.G", "1Gb/s", "0.3", "٣", "1\n2", "nan", "9" * 5000]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@given(st.integers(0, 2**63))
def test_whole_bytes_survive(size: int) -> None:
    assert parse_size(str(size)) == size
    assert parse_size(f"{size}K") == size * KIB


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1.5 * GIB, "1.5 GiB"), (5000 * TIB, "5000.0 TiB")]
)
def test_sizes_are_written(size: float, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (42.2, "42 s"), (59.7, "1m00s"), (185, "3m05s"), (3599.6, "1h00m"), (7800, "2h10m")]
)
def test_durations_are_written(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
