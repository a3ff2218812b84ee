"""Copying images between any two places, byte for byte: digests never change, and every blob is verified on its way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from imagekit.base.errors import ImageError, VerificationError
from imagekit.base.progress import Progress
from imagekit.base.units import MIB
from registrydisk.digest import Digest, VerifyingStream
from registrydisk.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Platform, RawManifest, parse_index, parse_manifest
from registrydisk.reference import ImageReference
from registrydisk.selection import MOST_INDEX_DEPTH, MOST_MANIFESTS, read_child, select_manifest
from registrydisk.store import ImageSource, ImageTarget

_PIECE_BYTES = MIB
_TRIES = 2


@runtime_checkable
class _InRegistry(Protocol):
    """A source or target that knows in which repository it is."""

    reference: ImageReference


@runtime_checkable
class _MountingTarget(Protocol):
    """A registry that can take a blob from another of its repositories."""

    reference: ImageReference

    def try_mount(self, digest: Digest, from_repository: str) -> bool:
        """Return whether the blob is in this repository now."""
        ...


@dataclass(kw_only=True)
class _Plan:
    """What a copy consists of: manifests in the order of writing, the top one last, and the blobs that they name."""

    manifests: dict[Digest, RawManifest] = field(default_factory=dict)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)


def copy_image(
    source: ImageSource, target: ImageTarget, *, platform: Platform | None, progress: Progress, is_top: bool = True
) -> Digest:
    """Copy an image and return the digest of its top document.

    Blobs that the target has are not sent; what is in another repository of the same registry is mounted.

    Args:
        platform: Copy the image for this platform alone; None copies everything, an index included.
        is_top: Whether the image gets the tag that the target was opened with; not so beneath an index of the caller's.

    Raises:
        ImageError: The image is malformed, or has nothing for the platform.
        VerificationError: A blob is not what its digest says, also on a second try.
    """
    if platform is None:
        top = source.read_manifest()
    else:
        descriptor, _ = select_manifest(source, platform=platform)
        top = source.read_manifest(descriptor.digest)
    plan = _Plan()
    _add(plan, source, top, depth=0)
    copier = _BlobCopier(source, target)
    missing = [blob for blob in plan.blobs.values() if not copier.is_there(blob.digest)]
    with progress.phase("copy", sum(blob.size_bytes for blob in missing)) as phase:
        for blob in missing:
            copier.copy(blob, on_bytes=phase.advance)
    for digest, manifest in plan.manifests.items():
        target.write_manifest(manifest, is_top=is_top and digest == top.digest)
    return top.digest


def _add(plan: _Plan, source: ImageSource, raw: RawManifest, *, depth: int) -> None:
    """Add a document after everything that it refers to."""
    if raw.digest in plan.manifests:
        return
    if len(plan.manifests) >= MOST_MANIFESTS:
        raise ImageError(f"the image has more than {MOST_MANIFESTS} manifests", reason="BadManifest")
    if raw.is_index:
        if depth >= MOST_INDEX_DEPTH:
            raise ImageError(f"the image nests more than {MOST_INDEX_DEPTH} indexes", reason="BadManifest")
        for descriptor in parse_index(raw).manifests:
            _add_entry(plan, source, descriptor, depth=depth + 1)
    else:
        manifest = parse_manifest(raw)
        for blob in (manifest.config, *manifest.layers):
            _add_blob(plan, blob)
    plan.manifests[raw.digest] = raw


def _add_entry(plan: _Plan, source: ImageSource, descriptor: Descriptor, *, depth: int) -> None:
    if descriptor.media_type not in INDEX_TYPES | MANIFEST_TYPES:
        raise ImageError(f"the index has an entry of the type {descriptor.media_type!r}", hint="copy one image with --platform")
    raw = read_child(source, descriptor)
    if raw.digest != descriptor.digest:
        raise ImageError(f"the index names a manifest by {descriptor.digest.algorithm}, only sha256 is supported")
    _add(plan, source, raw, depth=depth)


def _add_blob(plan: _Plan, blob: Descriptor) -> None:
    known = plan.blobs.setdefault(blob.digest, blob)
    if known.size_bytes != blob.size_bytes:
        raise ImageError(f"blob {blob.digest} has two sizes in one image", reason="BadManifest")


class _BlobCopier:
    """Moves blobs from one place to another, or finds that they need not move."""

    def __init__(self, source: ImageSource, target: ImageTarget) -> None:
        self._source = source
        self._target = target

    def is_there(self, digest: Digest) -> bool:
        """Ask first, then mount: neither moves a byte of the blob."""
        return self._target.has_blob(digest) or self._is_mounted(digest)

    def copy(self, blob: Descriptor, *, on_bytes: Callable[[int], None]) -> None:
        """Copy a blob; bytes that were changed on the way get one more chance, on a clean connection."""
        for attempt in range(1, _TRIES + 1):
            try:
                self._copy_once(blob, on_bytes)
            except VerificationError:
                if attempt == _TRIES:
                    raise
            else:
                return

    def _is_mounted(self, digest: Digest) -> bool:
        if not isinstance(self._source, _InRegistry) or not isinstance(self._target, _MountingTarget):
            return False
        here, there = self._target.reference, self._source.reference
        if here.registry != there.registry or here.repository == there.repository:
            return False
        return self._target.try_mount(digest, there.repository)

    def _copy_once(self, blob: Descriptor, on_bytes: Callable[[int], None]) -> None:
        with closing(self._source.open_blob(blob)) as reader:
            stream = VerifyingStream(reader, digest=blob.digest, size_bytes=blob.size_bytes, what=f"blob {blob.digest}")
            writer = self._target.open_blob_writer(size_bytes=blob.size_bytes)
            try:
                while piece := stream.read(_PIECE_BYTES):
                    writer.write(piece)
                    on_bytes(len(piece))
                writer.commit(blob.digest)
            finally:
                writer.abort()
