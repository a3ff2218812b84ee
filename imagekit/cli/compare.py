"""``imagekit compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagekit.base.command import output_option, print_result, progress_option
from imagekit.base.errors import VerificationError
from imagekit.base.progress import Progress
from imagekit.base.units import format_size
from imagekit.cli.options import image_path, stated_format_option
from imagekit.image import DiskFormat

if TYPE_CHECKING:
    from imagekit.disk import Compared


@click.command("compare")
@click.argument("first", type=image_path())
@click.argument("second", type=image_path())
@stated_format_option("--first-format", parameter="first_format", short=None)
@stated_format_option("--second-format", parameter="second_format", short=None)
@click.option("--strict", is_flag=True, help="The sizes have to be equal too; else a rest of zeros is no difference.")
@progress_option
@output_option
def compare(
    first: Path,
    second: Path,
    first_format: DiskFormat | None,
    second_format: DiskFormat | None,
    strict: bool,
    progress: Progress,
    output: str,
) -> None:
    """Tell whether a guest reads the same from the images FIRST and SECOND; exit code 5 when not.

    \b
    Example:
      imagekit compare fedora.qcow2 /var/lib/volumes/web/disk.img
    """
    from imagekit.disk import compare_disks  # the codecs behind it take longer to import than --help may

    compared = compare_disks(
        first, second, first_stated=first_format, second_stated=second_format, is_strict=strict, progress=progress
    )
    print_result(compared, output=output, text=lambda: _sentence(compared))
    if not compared.is_equal:
        raise VerificationError(f"{first} and {second} are not the same disk", reason="ContentMismatch")


def _sentence(compared: Compared) -> str:
    sizes = f"{format_size(compared.first_size_bytes)} and {format_size(compared.second_size_bytes)}"
    if compared.is_equal:
        return "equal" if compared.first_size_bytes == compared.second_size_bytes else f"equal, but for zeros at the end: {sizes}"
    if compared.first_difference_bytes is None:
        return f"different sizes: {sizes}"
    return f"different, first in the sector at byte {compared.first_difference_bytes}"
