"""``registrydisk build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagekit.base.command import EXIT_CODES, output_option, print_result, progress_option
from imagekit.base.progress import Progress
from registrydisk.cli.build_options import build_options
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess
    from registrydisk.build import BuildRequest


@click.command("build", epilog=EXIT_CODES)
@click.argument("disk", required=False)
@click.option("-t", "--target", required=True, metavar="TARGET", help="Where the image goes; a bare name means a registry.")
@click.option(
    "-f", "--file", "dockerfile", type=click.Path(path_type=Path), help="Build what this Dockerfile says; DISK is its context."
)
@click.option("--engine", type=click.Choice(["builtin", "docker"]), default="builtin", show_default=True, help="Who reads -f.")
@click.option("--platform", "platforms", multiple=True, metavar="OS/ARCH[=DISK]", help="What the guest runs on; repeatable.")
@click.option("--digest-file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the digest to this file.")
@build_options
@access_options
@output_option
@progress_option
def build(  # noqa: PLR0913 - click passes every option by name
    disk: str | None,
    target: str,
    dockerfile: Path | None,
    engine: str,
    platforms: tuple[str, ...],
    digest_file: Path | None,
    template: BuildRequest,
    access: RegistryAccess,
    output: str,
    progress: Progress,
) -> None:
    """Make a container image of DISK, a path or an http(s) URL, and write it to TARGET.

    The disk is read once and goes straight to TARGET: docker://REGISTRY/NAME:TAG, oci:DIR:TAG, oci-archive:FILE,
    docker-archive:FILE or docker-daemon:NAME:TAG. qcow2, raw and ISO disks are kept as they are; vmdk, vdi, vhd and vhdx
    are converted to qcow2. The last line printed is TARGET@DIGEST.

    \b
    Example:
      registrydisk build fedora.qcow2 -t quay.io/me/fedora:42
      registrydisk build -t oci:layout:1 --platform linux/amd64=a.qcow2 --platform linux/arm64=b.qcow2
      registrydisk build -f Dockerfile . -t quay.io/me/fedora:42
    """
    # Imported here, so that --help does not pay for codecs and HTTP.
    from imagekit.base.files import write_file
    from registrydisk.build_plan import plan_disks, plan_dockerfile
    from registrydisk.build_run import build_all
    from registrydisk.reference import Location, Transport

    location = Location.parse(target, default=Transport.DOCKER)
    if engine == "docker":
        from registrydisk.docker_build import build_with_docker

        result = build_with_docker(
            location, dockerfile=dockerfile, context=Path(disk or "."), platforms=platforms, access=access, progress=progress
        )
    else:
        if dockerfile is not None:
            requests = plan_dockerfile(template, dockerfile=dockerfile, context=Path(disk or "."), platforms=platforms)
        else:
            requests = plan_disks(template, disk=disk, platforms=platforms)
        result = build_all(requests, location, access=access, progress=progress)
    if digest_file is not None:
        write_file(digest_file, f"{result.digest}\n".encode())
    print_result(result, output=output, text=lambda: result.pinned)
