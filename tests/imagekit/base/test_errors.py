"""The error tree is what its own drawing and the help of every command say."""

from __future__ import annotations

import re

import pytest

from imagekit.base import errors
from imagekit.base.command import EXIT_CODES
from imagekit.base.errors import ImagekitError, NetworkError

FAMILIES = sorted(
    (value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ImagekitError)),
    key=lambda family: family.__name__,
)
_SHARED_CODE = {"ImagekitError", "ToolError"}


def test_exit_codes_tell_families_apart() -> None:
    codes = [family.exit_code for family in FAMILIES if family.__name__ not in _SHARED_CODE]
    assert len(codes) == len(set(codes))
    assert not set(codes) & {0, 1, 130, 143}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_family_is_drawn_with_its_code_and_reason(family: type[ImagekitError]) -> None:
    assert errors.__doc__ is not None
    line = next(line for line in errors.__doc__.splitlines() if re.search(rf"\b{family.__name__}\b", line))
    assert re.search(rf"\b{family.exit_code}\b", line)
    assert family.default_reason in line


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_help_documents_the_exit_code(family: type[ImagekitError]) -> None:
    assert re.search(rf"^ *(.* )?{family.exit_code} [a-z]", EXIT_CODES, re.MULTILINE)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_reasons_are_words_for_machines(family: type[ImagekitError]) -> None:
    assert re.fullmatch(r"([A-Z][a-z]+)+", family.default_reason)
    error = family("what failed", reason="OtherReason", hint="do this")
    assert (str(error), error.reason, error.hint) == ("what failed", "OtherReason", "do this")


def test_temporary_is_the_familys_unless_said() -> None:
    assert NetworkError("x").temporary
    assert not NetworkError("x", temporary=False).temporary
    assert not ImagekitError("x").temporary
