"""Words that hide what a thing does stay out of names, and every module says why it exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.rules.sources import ROOT, modules, name_of

_VAGUE_FILES = {"util", "utils", "common", "helpers", "helper", "misc", "tools"}
_VAGUE_CLASS = re.compile(r"(Manager|Helper|Handler|Processor|Data|Util|Utils)$")


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_names_say_what_things_are(path: Path) -> None:
    assert path.stem not in _VAGUE_FILES
    classes = [node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    assert not [name for name in classes if _VAGUE_CLASS.search(name)]


@pytest.mark.parametrize("path", [path for path in modules() if path.read_text().strip()], ids=name_of)
def test_module_says_why_it_exists(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_packages_are_ours() -> None:
    """Top-level names as common as ``launcher`` must not come from somewhere else."""
    import importlib

    for package in ("imagekit", "registrydisk", "cdi", "launcher", "controller"):
        file = importlib.import_module(package).__file__
        assert file is not None
        assert Path(file).parent.parent == ROOT
