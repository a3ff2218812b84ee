"""Lint, format, types and the direction of imports, as tests."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.rules.sources import ROOT

pytestmark = [pytest.mark.process, pytest.mark.xdist_group("static")]


def check(*command: str) -> None:
    """Run a tool of the environment over the tree; its findings are the failure's text."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_lint() -> None:
    check("-m", "ruff", "check", ".")


def test_format() -> None:
    check("-m", "ruff", "format", "--check", ".")


def test_types() -> None:
    check("-m", "mypy")


def test_packages_import_one_way() -> None:
    check("-c", "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())")
