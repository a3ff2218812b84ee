"""What layers hide, against a model that really puts layers on each other."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError
from registrydisk import whiteouts
from registrydisk.whiteouts import Whiteouts

_FILES = ["disk/a", "disk/b", "disk/d/a", "disk/d/b", "disk", "etc/a"]
_MARKS = [
    "disk/.wh.a",
    "disk/.wh.d",
    "disk/d/.wh.a",
    ".wh.disk",
    ".wh.etc",
    "disk/.wh..wh..opq",
    "disk/d/.wh..wh..opq",
    ".wh..wh..opq",
]
_LAYERS = st.lists(st.lists(st.sampled_from(_FILES + _MARKS), max_size=4, unique=True), max_size=4)


def _applied(layers: list[list[str]]) -> set[str]:
    """Put the layers on each other from the base up, the way an unpacker does."""
    tree: set[str] = set()
    for names in layers:
        for name in names:
            directory, _, last = name.rpartition("/")
            if last == ".wh..wh..opq":
                tree = {path for path in tree if directory and not path.startswith(f"{directory}/")}
            elif last.startswith(".wh."):
                hidden = "/".join(filter(None, (directory, last[4:])))
                tree = {path for path in tree if path != hidden and not path.startswith(f"{hidden}/")}
        for name in names:
            if ".wh." in name:
                continue
            parts = name.split("/")
            above = {"/".join(parts[:length]) for length in range(1, len(parts))}
            tree = {path for path in tree if path not in above and not path.startswith(f"{name}/")}
            tree.add(name)
    return {path for path in tree if path == "disk" or path.startswith("disk/")}


def _seen(layers: list[list[str]]) -> set[str]:
    seen = Whiteouts()
    found: set[str] = set()
    for names in reversed(layers):
        for name in names:
            if not seen.note(tuple(name.split("/")), is_directory=False) and name.startswith("disk"):
                found.add(name)
        seen.end_layer()
    return found


def _is_tree(names: list[str]) -> bool:
    """Whether no name of one layer is a file and a directory at once, which no unpacked layer is."""
    return not any(other.startswith(f"{name}/") for name in names for other in names)


@settings(max_examples=400, deadline=None)
@example([["disk/b"], ["disk"], ["disk/a"]])  # a directory that became a file and a directory again
@given(_LAYERS.filter(lambda layers: all(_is_tree(names) for names in layers)))
def test_reading_from_the_top_sees_what_unpacking_from_the_base_leaves(layers: list[list[str]]) -> None:
    assert _seen(layers) == _applied(layers)


def test_names_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whiteouts, "_MOST_NAMES", 10)
    seen = Whiteouts()
    for number in range(10):
        seen.note(("disk", f".wh.{number}"), is_directory=False)
    with pytest.raises(ImageError):
        seen.note(("disk", ".wh.more"), is_directory=False)
