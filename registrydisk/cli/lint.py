"""``registrydisk lint``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagekit.base.command import EXIT_CODES, output_option, print_result, progress_option
from imagekit.base.progress import Progress
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess

_FAILED = 5


@click.command("lint", epilog=EXIT_CODES)
@click.argument("image")
@click.option("--platform", metavar="OS/ARCH", help="Only this image of an index. [default: all]")
@click.option("--quick", is_flag=True, help="Read only the beginning of the disk; digests and later files stay unseen.")
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@access_options
@output_option
@progress_option
def lint(
    image: str, platform: str | None, quick: bool, strict: bool, access: RegistryAccess, output: str, progress: Progress
) -> int:
    """Find what would make IMAGE fail or be slow on KubeVirt, CDI or docker.

    Ends with exit code 5 when there is an error.

    \b
    Example:
      registrydisk lint quay.io/me/fedora:42
      registrydisk lint oci:layout:42 --strict -o json
    """
    # Imported here, so that --help does not pay for codecs and HTTP.
    from registrydisk.lint_run import format_reports, lint_source
    from registrydisk.manifest import Platform
    from registrydisk.places import open_source
    from registrydisk.reference import Location, Transport

    wanted = Platform.parse(platform) if platform else None
    with open_source(Location.parse(image, default=Transport.DOCKER), access=access, progress=progress) as source:
        reports = lint_source(source, platform=wanted, is_quick=quick, progress=progress)
    print_result({"images": reports}, output=output, text=lambda: format_reports(reports))
    return _FAILED if any(report.fails(is_strict=strict) for report in reports) else 0
