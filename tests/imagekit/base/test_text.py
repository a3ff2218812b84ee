"""Text from elsewhere on a terminal."""

from __future__ import annotations

import pytest

from imagekit.base.text import printable


@pytest.mark.parametrize(
    ("text", "kept", "expected"),
    [
        ("plain ü 日本", "", "plain ü 日本"),
        ("\x1b[2Jgone", "", "\\x1b[2Jgone"),
        ("a\nb", "", "a\\nb"),
        ("a\nb", "\n", "a\nb"),
        ("not text: \udcff", "", "not text: \\udcff"),
        ("right to left \u202e", "", "right to left \\u202e"),
    ],
)
def test_nothing_moves_the_cursor(text: str, kept: str, expected: str) -> None:
    assert printable(text, kept=kept) == expected
    printable(text, kept=kept).encode()
