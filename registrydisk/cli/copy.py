"""``registrydisk copy``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagekit.base.command import EXIT_CODES, output_option, print_result, progress_option
from imagekit.base.progress import Progress
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess


@click.command("copy", epilog=EXIT_CODES)
@click.argument("source")
@click.argument("target")
@click.option("--platform", metavar="OS/ARCH", help="Copy only this image of an index.")
@click.option("--all", "is_everything", is_flag=True, help="Insist on the whole index. [default where TARGET can hold one]")
@access_options
@output_option
@progress_option
def copy(
    source: str, target: str, platform: str | None, is_everything: bool, access: RegistryAccess, output: str, progress: Progress
) -> None:
    """Copy an image from SOURCE to TARGET, byte for byte, verified.

    Both are a name in a registry, or any of docker://, oci:DIR:TAG, oci-archive:FILE, docker-archive:FILE and
    docker-daemon:NAME:TAG. The last line printed is TARGET@DIGEST.

    \b
    Example:
      registrydisk copy docker://quay.io/me/fedora:42 docker://registry.local/vm/fedora:42
      registrydisk copy oci:layout:42 docker-archive:fedora.tar:fedora:42 --platform linux/arm64
    """
    # Imported here, so that --help does not pay for HTTP.
    from registrydisk.copy_run import Extent, copy_between
    from registrydisk.manifest import Platform
    from registrydisk.reference import Location, Transport

    copied = copy_between(
        Location.parse(source, default=Transport.DOCKER),
        Location.parse(target, default=Transport.DOCKER),
        extent=Extent.EVERYTHING if is_everything else Extent.WHAT_FITS,
        platform=Platform.parse(platform) if platform else None,
        access=access,
        progress=progress,
    )
    print_result(copied, output=output, text=lambda: copied.pinned)
