"""A build from its requests to its result: one image, or an index of several, in the place that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from imagekit.base.progress import Progress
from registrydisk.access import RegistryAccess
from registrydisk.build import BuildRequest, BuiltImage, build_image, build_index
from registrydisk.digest import Digest
from registrydisk.places import open_target
from registrydisk.reference import Location, Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """What a build made: the digest of the top document, and the images beneath it."""

    target: str
    digest: Digest
    pinned: str
    images: tuple[BuiltImage, ...] = ()


def build_all(requests: Sequence[BuildRequest], location: Location, *, access: RegistryAccess, progress: Progress) -> BuildResult:
    """Build the requested images into ``location``; several are joined by an index.

    Raises:
        ImagekitError: As ``build_image``, and whatever the place fails with.
    """
    requests = [replace(request, access=access) for request in requests]
    with open_target(location, access=access, progress=progress) as target:
        if len(requests) == 1:
            image = build_image(requests[0], target, progress=progress)
            return build_result(location, image.digest, images=(image,))
        index = build_index(requests, target, progress=progress)
        return build_result(location, index.digest, images=index.images)


def build_result(location: Location, digest: Digest, *, images: tuple[BuiltImage, ...] = ()) -> BuildResult:
    """Return the result with the name that others pull it by."""
    is_registry = location.transport is Transport.DOCKER
    name = str(location.reference) if is_registry else str(location)
    return BuildResult(target=name, digest=digest, pinned=f"{name}@{digest}", images=images)
