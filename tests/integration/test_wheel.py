"""What users install: one wheel with our five packages and their commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rules.sources import PACKAGES, ROOT

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree and unpacked as pip does it, without its dependencies."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, ROOT], check=True, timeout=120)
    (wheel,) = place.glob("imagekit-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", place / "site", wheel], check=True, timeout=120)
    return place / "site"


def test_our_packages_and_nothing_else(installed: Path) -> None:
    packages = {path.name for path in installed.iterdir() if path.name != "bin" and not path.name.endswith(".dist-info")}
    assert packages == set(PACKAGES)
    assert all((installed / package / "py.typed").exists() for package in PACKAGES)


def test_package_files_come_along(installed: Path) -> None:
    ours = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    missing = [str(path) for path in ours if "__pycache__" not in path.parts and not (installed / path).exists()]
    assert not missing


@pytest.mark.parametrize("command", ["imagekit", "registrydisk", "cdi", "virt-launcher"])
def test_commands_start(command: str, installed: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    ended = subprocess.run(
        [installed / "bin" / command, "--version"], env=environment, cwd="/", capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.strip() == f"{command} 0.1.0"
