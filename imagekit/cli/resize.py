"""``imagekit resize``."""

from __future__ import annotations

from pathlib import Path

import click

from imagekit.base.command import output_option, print_result
from imagekit.base.units import format_size
from imagekit.cli.options import image_path, stated_format_option
from imagekit.image import DiskFormat


@click.command("resize")
@click.argument("image", type=image_path())
@click.argument("size")
@stated_format_option()
@click.option("--shrink", is_flag=True, help="Allow a smaller size; what lies beyond it is lost.")
@output_option
def resize(image: Path, size: str, stated: DiskFormat | None, shrink: bool, output: str) -> None:
    """Change the size of the disk in IMAGE to SIZE (20G), or by it (+5G), in place.

    Say --format raw for a raw disk that a guest has written to: what a guest writes may look like another format, and
    is then refused here instead of being believed.

    \b
    Example:
      imagekit resize fedora.qcow2 +10G
      imagekit resize --format raw /var/lib/volumes/web/disk.img 40G
    """
    from imagekit.disk import resize_disk  # the codecs behind it take longer to import than --help may

    resized = resize_disk(image, size=size, stated=stated, is_shrinking_allowed=shrink)
    change = f"{format_size(resized.old_size_bytes)} → {format_size(resized.new_size_bytes)}"
    print_result(resized, output=output, text=lambda: f"{image}: {resized.format.value}, {change}")
