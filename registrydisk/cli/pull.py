"""``registrydisk pull``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagekit.base.command import EXIT_CODES, output_option, print_result, progress_option
from imagekit.base.progress import Progress
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess


@click.command("pull", epilog=EXIT_CODES)
@click.argument("reference")
@click.argument("target", required=False)
@click.option("--platform", metavar="OS/ARCH", help="Which image of an index. [default: this machine's]")
@click.option("--all", "is_everything", is_flag=True, help="Fetch the whole index, all platforms.")
@access_options
@output_option
@progress_option
def pull(
    reference: str,
    target: str | None,
    platform: str | None,
    is_everything: bool,
    access: RegistryAccess,
    output: str,
    progress: Progress,
) -> None:
    """Fetch the image REFERENCE from a registry into TARGET, by default the OCI layout oci:NAME:TAG.

    The last line printed is TARGET@DIGEST.

    \b
    Example:
      registrydisk pull quay.io/me/fedora:42
      registrydisk pull quay.io/me/fedora:42 docker-archive:fedora.tar:fedora:42
    """
    # Imported here, so that --help does not pay for HTTP.
    from registrydisk.copy_run import Extent, copy_between, default_pull_target
    from registrydisk.manifest import Platform
    from registrydisk.reference import Location, Transport, registry_reference

    image = registry_reference(reference)
    copied = copy_between(
        Location(transport=Transport.DOCKER, reference=image),
        Location.parse(target) if target else default_pull_target(image),
        extent=Extent.EVERYTHING if is_everything else Extent.THIS_MACHINE,
        platform=Platform.parse(platform) if platform else None,
        access=access,
        progress=progress,
    )
    print_result(copied, output=output, text=lambda: copied.pinned)
