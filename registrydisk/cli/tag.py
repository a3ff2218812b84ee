"""``registrydisk tag``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagekit.base.command import EXIT_CODES, output_option, print_result
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess


@click.command("tag", epilog=EXIT_CODES)
@click.argument("reference")
@click.argument("new_tag", metavar="NEW-TAG")
@access_options
@output_option
def tag(reference: str, new_tag: str, access: RegistryAccess, output: str) -> None:
    """Give the image REFERENCE in a registry another tag in its repository; nothing is pulled.

    \b
    Example:
      registrydisk tag quay.io/me/fedora:42 stable
    """
    # Imported here, so that --help does not pay for HTTP.
    from registrydisk.reference import registry_reference
    from registrydisk.tags import add_tag

    tagged = add_tag(registry_reference(reference), new_tag, access=access)
    print_result(tagged, output=output, text=lambda: tagged.pinned)
