"""From an image's top document to the one manifest that is for a platform."""

from __future__ import annotations

import os
from collections.abc import Iterator

from imagekit.base.errors import ImageError
from registrydisk.blob import read_blob
from registrydisk.image_config import read_config
from registrydisk.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    Platform,
    RawManifest,
    parse_index,
    parse_manifest,
)
from registrydisk.store import ImageSource

__all__ = ["MOST_INDEX_DEPTH", "MOST_MANIFESTS", "machine_platform", "read_blob", "read_child", "read_config", "select_manifest"]

MOST_INDEX_DEPTH = 2
MOST_MANIFESTS = 256

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
}
_BASE_VARIANTS = {"amd64": "v1", "arm64": "v8", "arm": "v7"}


def machine_platform() -> Platform:
    """Return the platform of this machine, in Go's words, which images use: linux/amd64."""
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)


def select_manifest(source: ImageSource, *, platform: Platform | None = None) -> tuple[Descriptor, Manifest]:
    """Return the image for ``platform``, this machine's when omitted, and how an index refers to it.

    A variant that is not asked for may be any, the plainest first; one that is asked for may also be served by a lower
    one, as containerd does.

    Raises:
        ImageError: The document is malformed (BadManifest), or there is no image for the platform (PlatformMismatch).
    """
    wanted = platform or machine_platform()
    top = source.read_manifest()
    if not top.is_index:
        manifest = parse_manifest(top)
        found = read_config(source, manifest).platform
        if found.architecture and found.os and _rank(found, wanted) is None:
            raise _mismatch(wanted, [found])
        return top.descriptor(platform=found if found.architecture else None), manifest
    entries = list(_entries(source, top, depth=1))
    descriptor = _best(entries, wanted)
    return descriptor, parse_manifest(read_child(source, descriptor))


def read_child(source: ImageSource, descriptor: Descriptor) -> RawManifest:
    """Return the document that an index refers to.

    Raises:
        ImageError: It is not of the type or size that the index says, with reason BadManifest.
    """
    raw = source.read_manifest(descriptor.digest)
    if raw.media_type != descriptor.media_type or len(raw.content) != descriptor.size_bytes:
        raise ImageError(
            f"manifest {descriptor.digest} is {raw.media_type!r} of {len(raw.content)} bytes, "
            f"but its index says {descriptor.media_type!r} of {descriptor.size_bytes}",
            reason="BadManifest",
        )
    return raw


def _entries(source: ImageSource, raw: RawManifest, *, depth: int) -> Iterator[Descriptor]:
    """Yield the image manifests that an index leads to; the total is bounded."""
    seen = 0
    for descriptor in parse_index(raw).manifests:
        found = [descriptor]
        if descriptor.media_type in INDEX_TYPES:
            if depth == MOST_INDEX_DEPTH:
                raise ImageError(f"the image nests more than {MOST_INDEX_DEPTH} indexes", reason="BadManifest")
            found = list(_entries(source, read_child(source, descriptor), depth=depth + 1))
        seen += max(len(found), 1)
        if seen > MOST_MANIFESTS:
            raise ImageError(f"the index lists more than {MOST_MANIFESTS} images", reason="BadManifest")
        # Other types are artifacts of newer specifications, which readers must pass over.
        yield from (entry for entry in found if entry.media_type in MANIFEST_TYPES)


def _best(entries: list[Descriptor], wanted: Platform) -> Descriptor:
    ranked = [(rank, entry) for entry in entries if entry.platform and (rank := _rank(entry.platform, wanted)) is not None]
    if ranked:
        return min(ranked, key=lambda pair: pair[0])[1]
    raise _mismatch(wanted, [entry.platform for entry in entries if entry.platform])


def _rank(found: Platform, wanted: Platform) -> tuple[int, int] | None:
    """Return how well ``found`` serves ``wanted``, smaller is better; None when it does not."""
    if (found.os, found.architecture) != (wanted.os, wanted.architecture):
        return None
    found_level, wanted_level = _level(found), _level(wanted)
    if found_level <= wanted_level:
        return (0, wanted_level - found_level)
    return None if wanted.variant else (1, found_level)


def _level(platform: Platform) -> int:
    """Return the number in a variant, ``v8`` → 8; an architecture without one is at its base."""
    digits = (platform.variant or _BASE_VARIANTS.get(platform.architecture, "")).removeprefix("v")
    return int(digits) if digits.isdecimal() and len(digits) < 4 else 0


def _mismatch(wanted: Platform, there: list[Platform]) -> ImageError:
    names = sorted({str(platform) for platform in there if platform.os != "unknown"})
    offer = f"choose one with --platform, as --platform {names[0]}" if names else ""
    return ImageError(f"no image for {wanted}, only for {', '.join(names) or 'no platform'}", reason="PlatformMismatch", hint=offer)
