"""The console command ``registrydisk``."""

from __future__ import annotations

from typing import NoReturn

import click

from imagekit.base.command import EXIT_CODES, LazyGroup, run_command, version_option

_COMMANDS = {
    "build": ("registrydisk.cli.build:build", "Make a RegistryDisk image of a disk."),
    "push": ("registrydisk.cli.push:push", "Send a local image to a registry."),
    "pull": ("registrydisk.cli.pull:pull", "Fetch an image from a registry."),
    "copy": ("registrydisk.cli.copy:copy", "Copy an image from one place to another."),
    "inspect": ("registrydisk.cli.inspect:inspect", "Show an image and its disk without pulling it."),
    "lint": ("registrydisk.cli.lint:lint", "Find what would make an image fail or be slow."),
    "extract": ("registrydisk.cli.extract:extract", "Write the disk of an image to a file."),
    "index": ("registrydisk.cli.index:index", "Join images of several platforms under one name."),
    "tag": ("registrydisk.cli.tag:tag", "Give an image in a registry another tag."),
    "list": ("registrydisk.cli.list:list_tags", "List the tags of a repository."),
    "delete": ("registrydisk.cli.delete:delete", "Remove an image from a registry."),
    "login": ("registrydisk.cli.login:login", "Store credentials for a registry."),
    "logout": ("registrydisk.cli.logout:logout", "Forget the credentials for a registry."),
}


@click.command(cls=LazyGroup, table=_COMMANDS, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@version_option("registrydisk")
def group() -> None:
    """Build, move and check container images that carry a disk."""


def main() -> NoReturn:
    """Run the command and exit with its documented code."""
    run_command(group, name="registrydisk")


if __name__ == "__main__":
    main()
