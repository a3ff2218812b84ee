"""The console command ``cdi``."""

from __future__ import annotations

from typing import NoReturn

import click

from imagekit.base.command import EXIT_CODES, LazyGroup, run_command, version_option

_COMMANDS = {
    "import": ("cdi.cli.import_:import_", "Import a disk into a volume."),
    "worker": ("cdi.cli.worker:worker", "Run one import job, as a pod does."),
}


@click.command(cls=LazyGroup, table=_COMMANDS, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@version_option("cdi")
def group() -> None:
    """Fill volumes with disks."""


def main() -> NoReturn:
    """Run the command and exit with its documented code."""
    run_command(group, name="cdi")


if __name__ == "__main__":
    main()
