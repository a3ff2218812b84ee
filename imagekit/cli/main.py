"""The console command ``imagekit``."""

from __future__ import annotations

from typing import NoReturn

import click

from imagekit.base.command import EXIT_CODES, LazyGroup, run_command, version_option

_COMMANDS = {
    "inspect": ("imagekit.cli.inspect:inspect", "Show what an image is, and whether it is safe."),
    "convert": ("imagekit.cli.convert:convert", "Write an image in another format."),
    "resize": ("imagekit.cli.resize:resize", "Change the size of a disk."),
    "create": ("imagekit.cli.create:create", "Make an empty disk."),
    "check": ("imagekit.cli.check:check", "Look for errors in an image."),
    "compare": ("imagekit.cli.compare:compare", "Tell whether two images hold the same disk."),
    "measure": ("imagekit.cli.measure:measure", "Tell how large a converted image will be."),
    "doctor": ("imagekit.cli.doctor:doctor", "Check this machine for what the toolkit needs."),
}


@click.command(cls=LazyGroup, table=_COMMANDS, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@version_option("imagekit")
def group() -> None:
    """Look at disk images and change them."""


def main() -> NoReturn:
    """Run the command and exit with its documented code."""
    run_command(group, name="imagekit")


if __name__ == "__main__":
    main()
