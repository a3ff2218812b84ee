"""``registrydisk push``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagekit.base.command import EXIT_CODES, output_option, print_result, progress_option
from imagekit.base.progress import Progress
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess


@click.command("push", epilog=EXIT_CODES)
@click.argument("source")
@click.argument("reference")
@click.option("--platform", metavar="OS/ARCH", help="Send only this image of an index. [default: all]")
@access_options
@output_option
@progress_option
def push(source: str, reference: str, platform: str | None, access: RegistryAccess, output: str, progress: Progress) -> None:
    """Send the image at SOURCE, as oci:DIR:TAG or docker-archive:FILE, to the registry as REFERENCE.

    What the registry has already is not sent again. The last line printed is REFERENCE@DIGEST.

    \b
    Example:
      registrydisk push oci:layout:42 quay.io/me/fedora:42
    """
    # Imported here, so that --help does not pay for HTTP.
    from registrydisk.copy_run import Extent, copy_between
    from registrydisk.manifest import Platform
    from registrydisk.reference import Location, Transport, registry_reference

    copied = copy_between(
        Location.parse(source),
        Location(transport=Transport.DOCKER, reference=registry_reference(reference)),
        extent=Extent.EVERYTHING,
        platform=Platform.parse(platform) if platform else None,
        access=access,
        progress=progress,
    )
    print_result(copied, output=output, text=lambda: copied.pinned)
