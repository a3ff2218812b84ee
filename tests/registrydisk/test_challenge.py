"""WWW-Authenticate headers, good, odd and hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registrydisk.challenge import Challenge, parse_challenges

_NAME = st.text(alphabet="abcdefgh", min_size=1, max_size=8)
_VALUE = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="a"', [("basic", {"realm": "a"})]),
        (
            'Bearer realm="https://a/t",service="s",scope="x:y:pull,push"',
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "x:y:pull,push"})],
        ),
        ('Basic realm="a", Bearer realm="b", service=c', [("basic", {"realm": "a"}), ("bearer", {"realm": "b", "service": "c"})]),
        ("Negotiate, Basic", [("negotiate", {}), ("basic", {})]),
        ("Negotiate YWJj==, BASIC realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        (r'Bearer realm="a\"b\\c"', [("bearer", {"realm": 'a"b\\c'})]),
        ('Bearer realm="first", realm="second"', [("bearer", {"realm": "first"})]),
        ('Bearer  REALM = "a" ,  , x = y', [("bearer", {"realm": "a", "x": "y"})]),
        ('Bearer realm="never closed', [("bearer", {"realm": ""})]),
        ("", []),
        (",,,", []),
        ('"', []),
    ],
)
def test_these_are_understood(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    found = parse_challenges(header)
    if "never closed" in header:
        assert "never closed" not in found[0].parameters.get("realm", "")
        return
    assert list(found) == [Challenge(scheme=scheme, parameters=parameters) for scheme, parameters in expected]


@given(st.text(max_size=400))
def test_anything_is_parsed_without_a_failure(header: str) -> None:
    for challenge in parse_challenges(header):
        assert challenge.scheme


@given(st.lists(st.tuples(_NAME, st.dictionaries(_NAME, _VALUE, min_size=1, max_size=3)), max_size=3))
def test_what_is_written_is_read(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(value: str) -> str:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in items.items()) for scheme, items in challenges
    )
    assert [(found.scheme, dict(found.parameters)) for found in parse_challenges(header)] == challenges


def test_a_huge_header_takes_no_time() -> None:
    assert len(parse_challenges('Bearer realm="' + '\\"' * 1_000_000)) <= 10_000
    assert len(parse_challenges("a " * 1_000_000)) <= 10_000
