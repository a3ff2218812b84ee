"""Files, functions and parameter lists stay small enough to hold in the head."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.rules.sources import functions, modules, name_of

MOST_LINES = 400
MOST_FUNCTION_LINES = 40
MOST_POSITIONAL = 3
MOST_COMMAND_LINES = 80


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_file_is_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_functions_are_small(path: Path) -> None:
    long = {function.name: lines for function in functions(path) if (lines := _code_lines(function)) > MOST_FUNCTION_LINES}
    assert not long


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_few_positional_parameters(path: Path) -> None:
    def positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
        names = [argument.arg for argument in function.args.posonlyargs + function.args.args]
        return len([name for name in names if name not in ("self", "cls")])

    wide = {
        function.name
        for function in functions(path)
        if positional(function) > MOST_POSITIONAL and not _is_called_by_a_framework(function)
    }
    assert not wide, f"more than {MOST_POSITIONAL} positional parameters: {wide}"


@pytest.mark.parametrize("path", [path for path in modules() if path.parent.name == "cli" and path.name != "main.py"], ids=name_of)
def test_command_files_only_parse_and_call(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_COMMAND_LINES * 2


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines without its signature, docstring and decorators."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    return (body[-1].end_lineno or body[-1].lineno) - body[0].lineno + 1


def _is_called_by_a_framework(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether click fixes the signature: a command takes each option by name."""
    return bool(function.decorator_list) or function.name.startswith("_on_")
