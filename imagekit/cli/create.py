"""``imagekit create``."""

from __future__ import annotations

from pathlib import Path

import click

from imagekit.base.units import parse_size
from imagekit.cli.options import cluster_size_option, image_path, target_format_of, target_format_option
from imagekit.image import DiskFormat


@click.command("create")
@click.argument("target", type=image_path())
@click.argument("size", type=parse_size)
@target_format_option
@cluster_size_option
@click.option(
    "--preallocate",
    type=click.Choice(["metadata", "falloc", "full"]),
    help="Allocate space now: only tables, unwritten space, or zeros.",
)
@click.option("--force", is_flag=True, help="Replace the target if it exists.")
def create(
    target: Path, size: int, target_format: DiskFormat | None, cluster_size: int | None, preallocate: str | None, force: bool
) -> None:
    """Make an empty disk of SIZE as the new file TARGET, and print its path.

    \b
    Example:
      imagekit create data.qcow2 100G
      imagekit create --preallocate falloc scratch.img 8G
    """
    from imagekit.disk import create_disk  # the codecs behind it take longer to import than --help may
    from imagekit.qemu_img import TargetOptions

    create_disk(
        target,
        target_format=target_format_of(target, target_format),
        size_bytes=size,
        options=TargetOptions(cluster_size_bytes=cluster_size, preallocation=preallocate),
        is_overwriting=force,
    )
    click.echo(target)
