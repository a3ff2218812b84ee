"""``registrydisk inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagekit.base.command import EXIT_CODES, output_option, print_result, progress_option
from imagekit.base.progress import Progress
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess


@click.command("inspect", epilog=EXIT_CODES)
@click.argument("image")
@click.option("--platform", metavar="OS/ARCH", help="Which image of an index. [default: this machine's]")
@click.option("--raw", "show", flag_value="raw", help="Print the manifest, or without --platform the index, as it is.")
@click.option("--config", "show", flag_value="config", help="Print the image's configuration as it is.")
@access_options
@output_option
@progress_option
def inspect(image: str, platform: str | None, show: str | None, access: RegistryAccess, output: str, progress: Progress) -> None:
    """Show IMAGE and the disk in it without pulling it.

    IMAGE is a name in a registry, or any of docker://, oci:, oci-archive:, docker-archive: and docker-daemon:.

    \b
    Example:
      registrydisk inspect quay.io/me/fedora:42
      registrydisk inspect oci:layout:42 --config
    """
    # Imported here, so that --help does not pay for codecs and HTTP.
    from registrydisk.image_facts import describe_image, format_facts, read_document
    from registrydisk.manifest import Platform
    from registrydisk.places import open_source
    from registrydisk.reference import Location, Transport

    wanted = Platform.parse(platform) if platform else None
    location = Location.parse(image, default=Transport.DOCKER)
    with open_source(location, access=access, progress=progress) as source:
        if show is not None:
            click.echo(read_document(source, platform=wanted, is_config=show == "config"), nl=False)
            return
        facts = describe_image(source, name=str(location), platform=wanted, progress=progress)
    print_result(facts, output=output, text=lambda: format_facts(facts))
