"""``registrydisk extract``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagekit.base.command import EXIT_CODES, output_option, print_result, progress_option
from imagekit.base.progress import Progress
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess


@click.command("extract", epilog=EXIT_CODES)
@click.argument("image")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--platform", metavar="OS/ARCH", help="Which image of an index. [default: this machine's]")
@click.option("--force", is_flag=True, help="Replace FILE when it exists.")
@access_options
@output_option
@progress_option
def extract(
    image: str, file: Path, platform: str | None, force: bool, access: RegistryAccess, output: str, progress: Progress
) -> None:
    """Write the disk in IMAGE to FILE, as it is, once all its digests held.

    IMAGE is a name in a registry, or any of docker://, oci:, oci-archive:, docker-archive: and docker-daemon:.

    \b
    Example:
      registrydisk extract quay.io/me/fedora:42 fedora.qcow2
    """
    # Imported here, so that --help does not pay for codecs and HTTP.
    from imagekit.base.errors import UsageError
    from registrydisk.manifest import Platform
    from registrydisk.payload import extract_payload
    from registrydisk.places import open_source
    from registrydisk.reference import Location, Transport
    from registrydisk.selection import read_config, select_manifest

    if file.exists() and not force:
        raise UsageError(f"{file} exists already", hint="give another name, or --force to replace it")
    wanted = Platform.parse(platform) if platform else None
    with open_source(Location.parse(image, default=Transport.DOCKER), access=access, progress=progress) as source:
        _, manifest = select_manifest(source, platform=wanted)
        disk = extract_payload(source, manifest, read_config(source, manifest), target=file, progress=progress)
    print_result(disk, output=output, text=lambda: f"{file}  {disk.digest}")
