"""What a test needs of the machine: missing, it fails in CI and is visibly skipped elsewhere."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing(what: str) -> NoReturn:
    """End the test: a failure in CI, a skip elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(f"CI lacks a prerequisite: {what}")
    pytest.skip(f"needs {what}")


def require_program(name: str) -> str:
    """Return the path of the program ``name``."""
    found = shutil.which(name, path=SEARCH_PATH)
    return found or missing(f"the program {name}")


def require_root() -> None:
    """End the test unless it runs as root."""
    if os.geteuid() != 0:
        missing("root")
