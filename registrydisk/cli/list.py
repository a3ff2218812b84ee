"""``registrydisk list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagekit.base.command import EXIT_CODES, output_option, print_result
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess


@click.command("list", epilog=EXIT_CODES)
@click.argument("repository")
@access_options
@output_option
def list_tags(repository: str, access: RegistryAccess, output: str) -> None:
    """List the tags of REPOSITORY, one a line.

    \b
    Example:
      registrydisk list quay.io/me/fedora
    """
    # Imported here, so that --help does not pay for HTTP.
    from registrydisk.reference import registry_reference
    from registrydisk.remote import list_tags as read_tags

    reference = registry_reference(repository)
    tags = read_tags(reference, access=access)
    if tags or output != "text":  # no tag is no line
        print_result({"repository": reference.name, "tags": tags}, output=output, text=lambda: "\n".join(tags))
