"""``registrydisk delete``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from imagekit.base.command import EXIT_CODES
from imagekit.base.errors import UsageError
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess


@click.command("delete", epilog=EXIT_CODES)
@click.argument("reference")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@access_options
def delete(reference: str, yes: bool, access: RegistryAccess) -> None:
    """Remove the image REFERENCE, with all tags that lead to the same manifest, from its registry.

    Its bytes are freed when the registry collects its garbage.

    \b
    Example:
      registrydisk delete quay.io/me/fedora:41
    """
    # Imported here, so that --help does not pay for HTTP.
    from registrydisk.reference import registry_reference
    from registrydisk.remote import delete_image

    image = registry_reference(reference)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"nobody is there to confirm that {image} shall be removed", hint="add --yes")
        click.confirm(f"Remove {image} and all its tags?", abort=True, err=True)
    click.echo(image.with_digest(delete_image(image, access=access)))
