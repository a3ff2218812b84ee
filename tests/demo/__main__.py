"""``./dev demo``: run the main job on this machine and print what each step took."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import click

from imagekit.base.command import run_command
from tests.demo.demo import run_demo, table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--keep", is_flag=True, help="Keep the disk, the image and the volume, and say where.")
def main(keep: bool) -> None:
    """Build a guest disk, publish it as a RegistryDisk, import it into a volume and boot it. Example: ./dev demo"""
    scratch = Path(tempfile.mkdtemp(prefix="imagekit-demo-", dir="/var/tmp"))
    try:
        click.echo(table(run_demo(scratch)))
        if keep:
            click.echo(f"kept in {scratch}")
    finally:
        if not keep:
            shutil.rmtree(scratch, ignore_errors=True)
    click.echo("demo: ok")


if __name__ == "__main__":
    run_command(main, name="./dev demo")
