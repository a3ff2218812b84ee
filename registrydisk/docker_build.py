"""Building any Dockerfile with a real docker daemon, through docker's own API (docker-py)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagekit.base.errors import ImagekitError, ToolError, UsageError
from imagekit.base.progress import Progress
from registrydisk.access import RegistryAccess
from registrydisk.build_run import BuildResult, build_result
from registrydisk.digest import Digest
from registrydisk.reference import Location, Transport

_BUILD_SECONDS = 3600
_LONGEST_LINE = 500


def build_with_docker(
    location: Location,
    *,
    context: Path,
    dockerfile: Path | None,
    platforms: Sequence[str],
    access: RegistryAccess,
    progress: Progress,
) -> BuildResult:
    """Let the docker daemon build ``context`` into its own store.

    Raises:
        UsageError: The target is another place, or there is no context.
        ToolError: The build failed, or there is no daemon.
    """
    if location.transport is not Transport.DOCKER_DAEMON or location.reference is None:
        hint = "write -t docker-daemon:NAME:TAG, then `registrydisk copy` it to where it shall be"
        raise UsageError("docker builds into its own store only", hint=hint)
    if not context.is_dir():
        raise UsageError(f"the build context {context} is not a directory")
    if len(platforms) > 1 or any("=" in platform for platform in platforms):
        raise UsageError("docker builds an image of one platform at a time")
    path = (dockerfile or context / "Dockerfile").resolve()
    image_id = _build(
        context, path, tag=str(location.reference), platform=platforms[0] if platforms else None, access=access, progress=progress
    )
    return build_result(location, Digest.parse(image_id))


def _build(context: Path, dockerfile: Path, *, tag: str, platform: str | None, access: RegistryAccess, progress: Progress) -> str:
    import docker
    import requests
    from docker.errors import DockerException

    try:
        with contextlib.closing(
            docker.DockerClient.from_env(environment=dict(access.environment), timeout=_BUILD_SECONDS)
        ) as client:
            events = client.api.build(
                path=str(context), dockerfile=str(dockerfile), tag=tag, platform=platform, rm=True, decode=True
            )
            for event in events:
                _tell(event, progress)
            image_id = client.images.get(tag).id
    except (DockerException, requests.RequestException, OSError) as error:
        raise _failure(str(error)) from error
    assert isinstance(image_id, str)
    return image_id


def _tell(event: dict[str, Any], progress: Progress) -> None:
    """Tell what the daemon tells; its failures come inside the stream, and are not raised by docker-py."""
    if "error" in event:
        raise _failure(str(event["error"]))
    line = str(event.get("stream", "")).strip()
    if line:
        progress.note(line[:_LONGEST_LINE])


def _failure(why: str) -> ImagekitError:
    hint = "is the daemon running, and may you use it? DOCKER_HOST says where it is"
    return ToolError(f"docker cannot build the image: {why[:_LONGEST_LINE].strip()}", hint=hint)
