"""What all our commands share: lazy sub-commands, error text, exit codes, output formats, progress.

A console command is ``LazyGroup`` in a ``cli/main.py`` and one file for each sub-command. ``--help`` imports none of
those files, which keeps it under 200 ms.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from imagekit.base.environment import read_environment
from imagekit.base.errors import ImagekitError
from imagekit.base.files import translate_os_error
from imagekit.base.progress import Progress, ProgressMode, open_progress
from imagekit.base.text import printable

EXIT_CODES = """\b
Exit codes:
  0 done             1 failed           2 wrong usage
  3 not found        4 access refused   5 verification failed
  6 network          7 no space         8 unsafe or unsupported image
  9 some of many failed                 124 timeout   130 interrupted
  143 terminated"""

Function = TypeVar("Function", bound=Callable[..., Any])


class LazyGroup(click.Group):
    """A group whose sub-commands are imported when they are called.

    Args:
        table: Name → (``"package.module:attribute"``, short help).
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help) for name, (_, short_help) in self._table.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self._table, n=1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from None
            raise


def version_option(program: str) -> Callable[[Function], Function]:
    """Add ``--version``; a tree that runs without being installed tells the version in its project file."""

    def tell(context: click.Context, _parameter: click.Parameter, is_asked: bool) -> None:
        if is_asked and not context.resilient_parsing:
            click.echo(f"{program} {_read_version()}")
            context.exit()

    return click.option(
        "--version", is_flag=True, expose_value=False, is_eager=True, callback=tell, help="Show the version and exit."
    )


def _read_version() -> str:
    import importlib.metadata  # only --version needs it
    import tomllib

    try:
        return importlib.metadata.version("imagekit")
    except importlib.metadata.PackageNotFoundError:
        project = Path(__file__).parents[2] / "pyproject.toml"
        return f"{tomllib.loads(project.read_text())['project']['version']} (source tree)"


def output_option(function: Function) -> Function:
    """Add ``-o text|json|yaml`` as the parameter ``output``."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["text", "json", "yaml"]),
        default="text",
        show_default=True,
        help="How the result is printed.",
    )(function)


def progress_option(function: Function) -> Function:
    """Add ``--progress`` as the parameter ``progress``, an open Progress."""
    return click.option(
        "--progress",
        type=click.Choice([mode.value for mode in ProgressMode]),
        default=ProgressMode.AUTO.value,
        show_default=True,
        callback=_open_progress,
        help="Bars on a terminal, plain lines elsewhere, or JSON lines on standard error.",
    )(function)


def _open_progress(_context: click.Context, _parameter: click.Parameter, value: str) -> Progress:
    environment = read_environment()
    is_ci = bool(environment.get("CI")) or environment.get("TERM") == "dumb"
    return open_progress(ProgressMode(value), is_ci=is_ci)


def to_document(value: Any) -> Any:
    """Return a dataclass as plain data with camelCase keys, the way JSON and YAML print it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if type(value).__str__ is not object.__str__:
            return str(value)  # a value type with a written form of its own, like a digest or a platform
        return {camel_case(field.name): to_document(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): to_document(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_document(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def print_result(value: Any, *, output: str, text: Callable[[], str]) -> None:
    """Print a command's result on standard output: ``text()``, or the document of ``value``."""
    if output == "text":
        click.echo(printable(text(), kept="\n\t"))
        return
    document = to_document(value)
    if isinstance(document, dict):
        document = {"schemaVersion": 1, **document}
    if output == "json":
        # A file name that is not UTF-8 has lone surrogates, which only an escape can carry.
        click.echo(json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace"))
    else:
        import yaml

        click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


def camel_case(name: str) -> str:
    """Return ``some_name`` as ``someName``."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


class Interrupted(BaseException):
    """SIGTERM arrived; unwinds like Ctrl-C, so that everything started is ended."""


def _on_terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted


def run_command(group: click.Command, *, name: str) -> NoReturn:
    """Run a console command and leave with its documented exit code; the one place that exits."""
    signal.signal(signal.SIGTERM, _on_terminate)
    is_debugging = bool(read_environment().get("IMAGEKIT_DEBUG"))
    try:
        result = group.main(prog_name=name, standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Exit as ending:
        sys.exit(ending.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except (ImagekitError, OSError) as error:
        if is_debugging:
            raise
        told = error if isinstance(error, ImagekitError) else _system_error(error)
        _print_error(told)
        sys.exit(told.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except Interrupted:
        click.echo("terminated", err=True)
        sys.exit(143)


def _system_error(error: OSError) -> ImagekitError:
    """Return the error for a system call that nobody expected to fail: the disk may be full where results are printed."""
    return translate_os_error(error, doing=f"use {error.filename}" if error.filename else "read or write")


def _print_error(error: ImagekitError) -> None:
    click.echo(click.style("error: ", fg="red", bold=True) + printable(error.message, kept="\n\t"), err=True)
    why = _why(error)
    if why and why not in error.message:
        click.echo(f"  why:  {printable(why[:500])}", err=True)
    if error.hint:
        click.echo(f"  hint: {printable(error.hint)}", err=True)


def _why(error: ImagekitError) -> str:
    """Return what caused ``error`` in one line: the system's words where a system call failed, whoever wrapped them."""
    cause = error.__cause__
    while cause is not None and not isinstance(cause, ImagekitError):
        if isinstance(cause, OSError) and cause.strerror:
            where = f": {cause.filename}" if cause.filename and str(cause.filename) not in error.message else ""
            return str(cause.strerror).partition("\n")[0] + where
        cause = cause.__cause__ or cause.__context__
    return str(cause or error.__cause__ or "").partition("\n")[0]
