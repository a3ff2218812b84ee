"""From what a build command was told to the images that it builds; no registry and no disk is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from imagekit.base.errors import UsageError
from registrydisk.build import BuildRequest
from registrydisk.dockerfile import find_disk, read_dockerfile
from registrydisk.manifest import Platform


def plan_disks(template: BuildRequest, *, disk: str | None, platforms: Sequence[str]) -> tuple[BuildRequest, ...]:
    """Return one request for each image.

    Args:
        platforms: ``OS/ARCHITECTURE``, or ``OS/ARCHITECTURE=DISK`` for an image of several.

    Raises:
        UsageError: It is not clear which disk is for which platform.
    """
    requests: list[BuildRequest] = []
    for text in platforms:
        platform, equals, own_disk = text.partition("=")
        chosen = own_disk if equals else disk
        if not chosen:
            raise UsageError(f"which disk is for {platform}?", hint=f"write --platform {platform}=DISK")
        requests.append(replace(template, disk=chosen, platform=Platform.parse(platform)))
    if disk and requests and all(request.disk != disk for request in requests):
        raise UsageError(f"{disk} is for no platform", hint="name each disk once: alone, or in --platform OS/ARCHITECTURE=DISK")
    if requests:
        return tuple(requests)
    if not disk:
        raise UsageError("no disk is named", hint="write registrydisk build DISK -t TARGET")
    return (replace(template, disk=disk),)


def plan_dockerfile(
    template: BuildRequest, *, dockerfile: Path, context: Path, platforms: Sequence[str]
) -> tuple[BuildRequest, ...]:
    """Return the request that a Dockerfile stands for; what the command line says is stronger.

    Raises:
        UsageError: The Dockerfile is of another form, or asks for what one disk cannot be.
        NotFoundError: It, or the disk that it names, does not exist.
    """
    if len(platforms) > 1 or any("=" in platform for platform in platforms):
        raise UsageError("a Dockerfile makes an image of one platform", hint="build each, then join them with `registrydisk index`")
    if not context.is_dir():
        raise UsageError(f"the build context {context} is not a directory")
    said = read_dockerfile(dockerfile)
    is_url = said.source.startswith(("http://", "https://"))
    request = replace(
        template,
        disk=said.source if is_url else str(find_disk(context, said.source)),
        disk_name=template.disk_name or said.disk_name,
        platform=Platform.parse(platforms[0]) if platforms else said.platform,
        labels={**said.labels, **template.labels},
        environment={**said.environment, **template.environment},
    )
    return (request,)
