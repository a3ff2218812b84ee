"""``registrydisk index``: its two commands are small enough to share a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from imagekit.base.command import EXIT_CODES, output_option, print_result, progress_option
from imagekit.base.progress import Progress, SilentProgress
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess


@click.group("index", epilog=EXIT_CODES)
def index() -> None:
    """Join images of several platforms under one name.

    \b
    Example:
      registrydisk index create quay.io/me/fedora:42 quay.io/me/fedora:42-amd64 quay.io/me/fedora:42-arm64
      registrydisk index show quay.io/me/fedora:42
    """


@index.command("create", epilog=EXIT_CODES)
@click.argument("target")
@click.argument("images", nargs=-1, required=True)
@access_options
@output_option
@progress_option
def create(target: str, images: tuple[str, ...], access: RegistryAccess, output: str, progress: Progress) -> None:
    """Write an index of IMAGES, one for each platform, to TARGET.

    \b
    Example:
      registrydisk index create quay.io/me/fedora:42 oci:amd64:42 oci:arm64:42
    """
    # Imported here, so that --help does not pay for HTTP.
    from registrydisk.build_run import build_result
    from registrydisk.index_join import join_images
    from registrydisk.places import open_target
    from registrydisk.reference import Location, Transport

    location = Location.parse(target, default=Transport.DOCKER)
    sources = [Location.parse(image, default=Transport.DOCKER) for image in images]
    with open_target(location, access=access, progress=progress) as opened:
        listing = join_images(sources, opened, access=access, progress=progress)
    print_result(listing, output=output, text=lambda: build_result(location, listing.digest).pinned)


@index.command("show", epilog=EXIT_CODES)
@click.argument("image")
@access_options
@output_option
def show(image: str, access: RegistryAccess, output: str) -> None:
    """Show what the index IMAGE lists.

    \b
    Example:
      registrydisk index show quay.io/me/fedora:42 -o json
    """
    from registrydisk.index_join import list_index
    from registrydisk.places import open_source
    from registrydisk.reference import Location, Transport

    with open_source(Location.parse(image, default=Transport.DOCKER), access=access, progress=SilentProgress()) as source:
        listing = list_index(source)
    print_result(listing, output=output, text=lambda: "\n".join(f"{entry.platform}  {entry.digest}" for entry in listing.images))
