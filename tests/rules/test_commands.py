"""Every command of every console program loads, explains itself with an example, and starts without heavy imports."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from imagekit.base.command import LazyGroup
from tests.rules.sources import ROOT

PROGRAMS = {
    "imagekit": "imagekit.cli.main",
    "registrydisk": "registrydisk.cli.main",
    "cdi": "cdi.cli.main",
    "virt-launcher": "launcher.cli.main",
}
_HEAVY = {"requests", "urllib3", "docker", "libvirt", "tqdm", "zstandard", "yaml", "msgspec", "tempfile.mkdtemp"}


def _commands(group: click.Group, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"{' '.join(words)} lists {name} but has no such command"
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*words, name))


def _all() -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for program, module in PROGRAMS.items():
        group = importlib.import_module(module).group
        assert isinstance(group, LazyGroup)
        found += _commands(group, (program,))
    return found


@pytest.mark.parametrize(("words", "command"), [pytest.param(words, command, id=" ".join(words)) for words, command in _all()])
def test_help_has_an_example_and_no_bare_option(words: tuple[str, ...], command: click.Command) -> None:
    text = command.get_help(click.Context(command, info_name=" ".join(words)))
    if not isinstance(command, click.Group):
        assert "Example" in text
    assert "\\b" not in text, "a raw docstring prints click's mark for lines that are not to be wrapped"
    bare = [option.name for option in command.params if isinstance(option, click.Option) and not option.help and not option.hidden]
    assert not bare, f"options without help: {bare}"


@pytest.mark.process
@pytest.mark.parametrize("program", PROGRAMS)
def test_help_imports_nothing_heavy(program: str) -> None:
    script = (
        "import sys\n"
        f"from {PROGRAMS[program]} import group\n"
        "group.main(['--help'], standalone_mode=False)\n"
        f"print('heavy:', sorted({_HEAVY!r} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60, env=environment)
    assert ended.stdout.rstrip().endswith("heavy: []")
