"""Rules for every test: no process and no socket without a mark, and fixtures for the real parts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.prerequisites import require_root

pytest_plugins = ["tests.support.fixtures", "tests.cluster.fixtures"]

_IMPLIED = {"docker": {"process", "network", "root"}, "boot": {"process", "network"}, "cluster": {"process", "network", "root"}}
_EVENTS = {
    "subprocess.Popen": "process",
    "os.posix_spawn": "process",
    "os.fork": "process",
    "socket.connect": "network",
    "socket.bind": "network",
}
_allowed: set[str] = {"process", "network"}


def _forbid(event: str, _arguments: tuple[Any, ...]) -> None:
    needed = _EVENTS.get(event)
    if needed is not None and needed not in _allowed:
        raise AssertionError(f"this test does {event} without the mark {needed!r}")


sys.addaudithook(_forbid)


def marks_of(item: pytest.Item) -> set[str]:
    """Return the marks of a test, with those that they imply."""
    marks = {mark.name for mark in item.iter_markers()}
    return marks.union(*(_IMPLIED.get(mark, set()) for mark in marks))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let a test, with its fixtures, do only what its marks say."""
    global _allowed
    before, _allowed = _allowed, marks_of(item)
    try:
        return (yield)
    finally:
        _allowed = before


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one daemon in one worker, and check that root is there where it is needed."""
    for item in items:
        for group in ("docker", "cluster"):
            if item.get_closest_marker(group):
                item.add_marker(pytest.mark.xdist_group(group))
        if "root" in marks_of(item):
            item.add_marker(pytest.mark.usefixtures("_root"))


@pytest.fixture
def _root() -> None:
    require_root()
