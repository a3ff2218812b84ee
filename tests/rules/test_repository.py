"""The repository names no machine's paths and no package registry, and its lock file is what pyproject.toml asks for."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest

from tests.rules.sources import ROOT

pytestmark = pytest.mark.process

_PRIVATE = re.compile(r"(?<![A-Za-z0-9_.])/(?:root|work)/|pypi\.org|pythonhosted\.org|deb\.debian\.org|proxy\.golang\.org")
_THIS_FILE = "tests/rules/test_repository.py"


def _tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_private_paths_or_registries() -> None:
    found = []
    for name in _tracked():
        if name != _THIS_FILE and _PRIVATE.search((ROOT / name).read_bytes().decode("utf-8", "replace")):
            found.append(name)
    assert not found


def test_no_large_files() -> None:
    assert not [name for name in _tracked() if (ROOT / name).stat().st_size > 1_000_000]


def test_lock_covers_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for extra in project["project"]["optional-dependencies"].values():
        asked += extra
    locked = set(re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    names = {re.split(r"[<>=\[ ]", line)[0].lower().replace(".", "-").replace("_", "-") for line in asked}
    assert names <= locked
    assert "--hash=sha256:" in (ROOT / "requirements.lock").read_text()
