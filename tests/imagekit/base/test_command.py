"""What all console commands share: exit codes, error text, documents, slips of the pen."""

from __future__ import annotations

import json
import os
import signal
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import click
import pytest
import yaml

from imagekit.base.command import LazyGroup, output_option, print_result, progress_option, run_command, to_document, version_option
from imagekit.base.errors import ImageError, ImagekitError, NetworkError, NotFoundError
from imagekit.base.progress import Progress
from imagekit.image import DiskFormat
from tests.rules.sources import ROOT

_TABLE = {
    "show": (f"{__name__}:show", "Show a document."),
    "fail": (f"{__name__}:fail", "Fail."),
    "broken": ("no.such.module:command", "Cannot be imported."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    first_word: str = "ä"
    size_bytes: int = 1
    format: DiskFormat = DiskFormat.QCOW2
    path: Path = Path("disk")
    parts: tuple[int, ...] = (1, 2)
    labels: dict[str, str] = field(default_factory=lambda: {"snake_key": "stays"})
    nothing: None = None


@click.command("show")
@click.option("--word", default="x")
@progress_option
@output_option
def show(word: str, progress: Progress, output: str) -> None:
    progress.note("on its way")
    print_result(Document(first_word=word), output=output, text=lambda: f"text {word}")


def fail_with_cause(how: str) -> NoReturn:
    match how:
        case "wrapped":
            inner = ValueError("Pool(port=443): Max retries exceeded")
            inner.__context__ = OSError(113, "No route to host")
            raise NetworkError("no answer") from inner
        case "elsewhere":
            raise NotFoundError("cannot import into x: No such file") from OSError(2, "No such file", "/nowhere")
        case "said already":
            raise NotFoundError("there is no file x") from NotFoundError("there is no file x")
        case _:
            raise ImageError("the image is odd", hint="use another") from OSError(5, "disk on fire\nsecond line")


@click.command("fail")
@click.argument("how")
def fail(how: str) -> None:
    match how:
        case "image" | "wrapped" | "elsewhere" | "said already":
            fail_with_cause(how)
        case "network":
            raise NetworkError("no answer")
        case "full":
            raise OSError(28, "No space left on device")
        case "interrupt":
            raise KeyboardInterrupt
        case "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        case "pipe":
            raise BrokenPipeError
        case "exit":
            click.get_current_context().exit(9)
        case _:
            raise click.UsageError("no such way")


@click.command(cls=LazyGroup, table=_TABLE)
@version_option("program")
def group() -> None:
    """Do nothing much."""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    try:
        with pytest.raises(SystemExit) as caught:
            run_command(group, name="program")
    finally:
        signal.signal(signal.SIGTERM, before)
    code = caught.value.code
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("image", 8, "error: the image is odd\n  why:  disk on fire\n  hint: use another\n"),
        ("network", 6, "error: no answer\n"),
        ("wrapped", 6, "error: no answer\n  why:  No route to host\n"),
        ("elsewhere", 3, "error: cannot import into x: No such file\n  why:  No such file: /nowhere\n"),
        ("said already", 3, "error: there is no file x\n"),
        (
            "full",
            7,
            "error: cannot read or write: No space left on device\n  hint: free some space there, or choose another place\n",
        ),
        ("interrupt", 130, "\ninterrupted\n"),
        ("terminate", 143, "terminated\n"),
        ("exit", 9, ""),
    ],
)
def test_endings_have_codes_and_words(
    how: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "fail", how) == code
    assert capsys.readouterr() == ("", said)


def test_a_reader_that_went_away_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "w") as nowhere:
        monkeypatch.setattr(sys, "stderr", nowhere)
        assert run(monkeypatch, "fail", "pipe") == 141


def test_wrong_usage_is_two(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "fail", "otherwise") == 2
    assert "no such way" in capsys.readouterr().err
    assert run(monkeypatch, "show", "--wrd", "x") == 2
    assert "--word" in capsys.readouterr().err


def test_a_slip_of_the_pen_is_answered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "shwo") == 2
    assert "Did you mean 'show'?" in capsys.readouterr().err


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEKIT_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["program", "fail", "image"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(ImagekitError):
            run_command(group, name="program")
    finally:
        signal.signal(signal.SIGTERM, before)


def test_help_imports_no_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    assert "Show a document." in printed
    assert "broken" in printed


def test_the_version_is_told_also_by_a_tree_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.split()[:2] == ["program", version]


def test_result_is_alone_on_standard_output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "show", "--progress", "plain") == 0
    assert capsys.readouterr() == ("text x\n", "on its way\n")


def test_documents_have_camel_case_keys_and_a_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    expected = {
        "schemaVersion": 1,
        "firstWord": "ä",
        "sizeBytes": 1,
        "format": "qcow2",
        "path": "disk",
        "parts": [1, 2],
        "labels": {"snake_key": "stays"},
        "nothing": None,
    }
    assert run(monkeypatch, "show", "--word", "ä", "-o", "json", "--progress", "none") == 0
    assert json.loads(capsys.readouterr().out) == expected
    assert run(monkeypatch, "show", "--word", "ä", "-o", "yaml", "--progress", "none") == 0
    assert yaml.safe_load(capsys.readouterr().out) == expected


def test_lists_are_documents_too() -> None:
    assert to_document([Document(), {3}]) == [to_document(Document()), [3]]
