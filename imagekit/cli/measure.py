"""``imagekit measure``."""

from __future__ import annotations

from pathlib import Path

import click

from imagekit.base.command import output_option, print_result
from imagekit.base.units import format_size
from imagekit.cli.options import cluster_size_option, disk_format, image_path, stated_format_option
from imagekit.image import DiskFormat


@click.command("measure")
@click.argument("image", type=image_path())
@click.option(
    "--to",
    "target_format",
    type=disk_format,
    metavar="FORMAT",
    default="raw",
    show_default=True,
    help="The format to foresee: raw or qcow2.",
)
@cluster_size_option
@stated_format_option()
@output_option
def measure(image: Path, target_format: DiskFormat, cluster_size: int | None, stated: DiskFormat | None, output: str) -> None:
    """Tell how large IMAGE becomes in another format: as it is, and once a guest has written everywhere.

    \b
    Example:
      imagekit measure --to qcow2 disk.img -o json
    """
    from imagekit.disk import measure_disk  # the codecs behind it take longer to import than --help may
    from imagekit.qemu_img import TargetOptions

    options = TargetOptions(cluster_size_bytes=cluster_size)
    measured = measure_disk(image, target_format=target_format, options=options, stated=stated)
    print_result(
        measured,
        output=output,
        text=lambda: f"{format_size(measured.required_bytes)} now, {format_size(measured.fully_allocated_bytes)} when full",
    )
