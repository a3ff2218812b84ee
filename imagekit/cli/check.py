"""``imagekit check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagekit.base.command import output_option, print_result
from imagekit.base.errors import VerificationError
from imagekit.cli.options import image_path, stated_format_option
from imagekit.image import DiskFormat

if TYPE_CHECKING:
    from imagekit.qemu_img import CheckReport


@click.command("check")
@click.argument("image", type=image_path())
@stated_format_option()
@click.option("--repair", type=click.Choice(["leaks", "all"]), help="Mend lost space, or everything; make a copy first.")
@output_option
def check(image: Path, stated: DiskFormat | None, repair: str | None, output: str) -> None:
    """Look for errors in the tables of IMAGE; exit code 5 when data is lost.

    Clusters that nothing uses (leaks) waste space and do no harm: the exit code is 0 then.

    \b
    Example:
      imagekit check fedora.qcow2 -o json
    """
    from imagekit.disk import check_disk  # the codecs behind it take longer to import than --help may

    report = check_disk(image, stated=stated, repair=repair)
    print_result(report, output=output, text=lambda: f"{image}: {_sentence(report)}")
    if not report.is_clean:
        raise VerificationError(
            f"{image} is damaged: {report.corruptions} corruptions, {report.errors} errors",
            reason="CorruptImage",
            hint="fetch the image again, or copy it and try --repair all on the copy",
        )


def _sentence(report: CheckReport) -> str:
    if not report.is_supported:
        return "safe; its format has no tables to check"
    if not report.is_clean:
        return f"damaged, {report.corruptions} corruptions, {report.errors} errors, {report.leaks} leaks"
    fixed = report.corruptions_fixed + report.leaks_fixed
    state = f"repaired {fixed} places" if fixed else "clean"
    return f"{state}, {report.leaks} leaked clusters (wasted space; --repair leaks frees it)" if report.leaks else state
