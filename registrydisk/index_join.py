"""Joining images of several platforms, each somewhere, into one index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imagekit.base.errors import ImageError, UsageError
from imagekit.base.progress import Progress
from registrydisk.access import RegistryAccess
from registrydisk.digest import Digest
from registrydisk.image_config import read_config
from registrydisk.manifest import OCI_INDEX, Descriptor, Index, Platform, RawManifest, parse_index, parse_manifest
from registrydisk.places import open_source
from registrydisk.reference import Location
from registrydisk.store import ImageSource, ImageTarget
from registrydisk.transfer import copy_image


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One image of an index."""

    platform: Platform | None
    digest: Digest
    media_type: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexListing:
    """An index: its digest and what it lists."""

    digest: Digest
    images: tuple[IndexEntry, ...]


def join_images(sources: Sequence[Location], target: ImageTarget, *, access: RegistryAccess, progress: Progress) -> IndexListing:
    """Copy the images at ``sources`` into ``target``, and write the index that lists them under its tag.

    Raises:
        UsageError: Two images are for one platform, or a source is an index itself.
        ImageError: An image does not say what it is for.
    """
    descriptors: dict[str, Descriptor] = {}
    for location in sources:
        with open_source(location, access=access, progress=progress) as source:
            descriptor = _platform_descriptor(source, location)
            name = str(descriptor.platform)
            if name in descriptors:
                raise UsageError(f"{location} is for {name}, as an image before it is", hint="name one image for each platform")
            descriptors[name] = descriptor
            copy_image(source, target, platform=None, progress=progress, is_top=False)
    raw = Index(media_type=OCI_INDEX, manifests=tuple(descriptors[name] for name in sorted(descriptors))).to_raw()
    target.write_manifest(raw)
    return _listing(raw)


def list_index(source: ImageSource) -> IndexListing:
    """Return what the index in ``source`` lists.

    Raises:
        ImageError: It is a single image, or malformed.
    """
    raw = source.read_manifest()
    if not raw.is_index:
        raise ImageError("this is one image and no index", reason="BadManifest", hint="registrydisk inspect shows it")
    return _listing(raw)


def _listing(raw: RawManifest) -> IndexListing:
    entries = tuple(
        IndexEntry(platform=entry.platform, digest=entry.digest, media_type=entry.media_type, size_bytes=entry.size_bytes)
        for entry in parse_index(raw).manifests
    )
    return IndexListing(digest=raw.digest, images=entries)


def _platform_descriptor(source: ImageSource, location: Location) -> Descriptor:
    raw = source.read_manifest()
    if raw.is_index:
        raise UsageError(f"{location} is an index itself", hint="name each of its images by digest")
    manifest = parse_manifest(raw)
    platform = read_config(source, manifest).platform
    if not platform.os or not platform.architecture:
        raise ImageError(f"{location} does not say what platform it is for", reason="PlatformMismatch")
    return raw.descriptor(platform=platform, annotations=manifest.annotations)
