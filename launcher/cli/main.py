"""The console command ``virt-launcher``."""

from __future__ import annotations

from typing import NoReturn

import click

from imagekit.base.command import EXIT_CODES, LazyGroup, run_command, version_option

_COMMANDS = {
    "run": ("launcher.cli.run:run", "Boot a volume or a RegistryDisk on this machine."),
}


@click.command(cls=LazyGroup, table=_COMMANDS, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@version_option("virt-launcher")
def group() -> None:
    """Boot a virtual machine."""


def main() -> NoReturn:
    """Run the command and exit with its documented code."""
    run_command(group, name="virt-launcher")


if __name__ == "__main__":
    main()
