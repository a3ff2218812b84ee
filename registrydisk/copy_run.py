"""A copy from its two places to its result; which images of an index go along is decided here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from imagekit.base.errors import UsageError
from imagekit.base.progress import Progress
from registrydisk.access import RegistryAccess
from registrydisk.digest import Digest
from registrydisk.manifest import Platform
from registrydisk.places import open_source, open_target
from registrydisk.reference import ImageReference, Location, Transport
from registrydisk.selection import machine_platform
from registrydisk.store import ImageSource
from registrydisk.transfer import copy_image

_ONE_IMAGE = frozenset({Transport.DOCKER_ARCHIVE, Transport.DOCKER_DAEMON})


class Extent(Enum):
    """How much of an index is copied when no platform is named."""

    EVERYTHING = "everything"
    WHAT_FITS = "what fits"
    THIS_MACHINE = "this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy made; ``pinned`` is the name by which exactly this is found again."""

    source: str
    target: str
    digest: Digest
    pinned: str


def copy_between(
    source: Location,
    target: Location,
    *,
    extent: Extent,
    platform: Platform | None = None,
    access: RegistryAccess,
    progress: Progress,
) -> Copied:
    """Copy an image; a ``platform`` that is named decides, else ``extent`` does where there is an index.

    Raises:
        UsageError: Everything is asked for and the target holds one image only.
        ImagekitError: As ``copy_image``, and whatever the places fail with.
    """
    with open_source(source, access=access, progress=progress) as opened:
        # The choice comes first: it must not cost a transfer to learn that nothing fits.
        wanted = platform or _default_platform(opened, target, extent)
        with open_target(target, access=access, progress=progress) as place:
            digest = copy_image(opened, place, platform=wanted, progress=progress)
    return Copied(source=str(source), target=str(target), digest=digest, pinned=target.pinned(digest))


def default_pull_target(reference: ImageReference) -> Location:
    """Return where a pulled image goes: an OCI layout in the working directory with the repository's last name."""
    return Location(transport=Transport.OCI, path=Path(reference.repository.rpartition("/")[2]), tag=reference.tag)


def _default_platform(source: ImageSource, target: Location, extent: Extent) -> Platform | None:
    if not source.read_manifest().is_index:
        return None
    if target.transport in _ONE_IMAGE and extent is Extent.EVERYTHING:
        raise UsageError(f"{target.transport.value}: holds one image, not an index", hint="choose one with --platform")
    if extent is Extent.THIS_MACHINE or target.transport in _ONE_IMAGE:
        return machine_platform()
    return None
