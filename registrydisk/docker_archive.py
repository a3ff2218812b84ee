"""Archives of ``docker save`` and for ``docker load`` (Docker image specification v1.2, "Combined Image JSON").

Reading takes the image's own manifest where the archive keeps it, and else makes an OCI manifest of what is there, with the
layers as they are. Writing makes what docker itself
makes since version 25: an OCI layout that also has a ``manifest.json``, so both kinds of readers understand it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagekit.base.errors import ImageError, NotFoundError, UsageError
from imagekit.base.files import require_free_bytes
from imagekit.base.units import MIB
from imagekit.compression import detect_compression
from imagekit.image import Compression
from registrydisk.digest import Digest
from registrydisk.image_config import parse_config
from registrydisk.layout_source import ANNOTATION_TAG, blob_name, listed, read_layout_index
from registrydisk.manifest import (
    LARGEST_DOCUMENT_BYTES,
    MANIFEST_TYPES,
    MOST_LAYERS,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    RawManifest,
    canonical_json,
    parse_index,
    parse_json,
    parse_manifest,
)
from registrydisk.oci_archive import ArchiveBlobs, ArchiveBlobWriter, layout_files, require_directory
from registrydisk.partial_file import PartialFile, remove_stale
from registrydisk.reference import ImageReference
from registrydisk.selection import MOST_MANIFESTS
from registrydisk.store import BlobReader
from registrydisk.tar_index import TarIndex, open_tar_index

ANNOTATION_IMAGE_NAME = "io.containerd.image.name"
_MANIFEST_FILE = "manifest.json"
_HEAD_BYTES = 64
_SUFFIXES = {Compression.NONE: "", Compression.GZIP: "+gzip", Compression.ZSTD: "+zstd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _SavedImage:
    """One entry of ``manifest.json``: the names of files in the archive, and the image's own names."""

    config: str
    layers: tuple[str, ...]
    references: tuple[ImageReference, ...]


class DockerArchiveSource:
    """One image of a docker archive: the one called ``reference``, or the only one when that is empty."""

    def __init__(self, files: TarIndex, *, reference: str, where: str) -> None:
        self._files = files
        self._where = where
        image = self._choose(reference)
        self._names: dict[Digest, str] = {}
        self._manifest = self._kept_manifest(image) or self._make_manifest(image)

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        if digest not in (None, self._manifest.digest):
            raise NotFoundError(f"{self._where} has no manifest {digest}")
        return self._manifest

    def open_blob(self, descriptor: Descriptor, *, offset_bytes: int = 0) -> BlobReader:
        name = self._names.get(descriptor.digest)
        if name is None:
            raise NotFoundError(f"{self._where} lacks the blob {descriptor.digest}")
        return self._files.open(name, offset_bytes=offset_bytes)

    def close(self) -> None:
        self._files.close()

    def _choose(self, reference: str) -> _SavedImage:
        images = _parse_saved_images(self._read(_MANIFEST_FILE), where=self._where)
        names = listed([str(name) for image in images for name in image.references]) or "none of them has a name"
        if reference:
            wanted = ImageReference.parse(reference)
            images = [image for image in images if wanted in image.references]
        if not images:
            raise NotFoundError(f"{self._where} has no image {reference}".rstrip(), hint=f"its images: {names}")
        if len(images) > 1:
            raise UsageError(f"{self._where} has {len(images)} images", hint=f"add :NAME:TAG to choose one: {names}")
        return images[0]

    def _kept_manifest(self, image: _SavedImage) -> RawManifest | None:
        """Return the manifest that a newer archive has beside, when it names the very same files."""
        for entry in parse_index(read_layout_index(self._files)).manifests[:MOST_MANIFESTS]:
            if entry.media_type not in MANIFEST_TYPES or not self._files.has(blob_name(entry.digest)):
                continue
            raw = RawManifest(media_type=entry.media_type, content=self._read(blob_name(entry.digest)))
            manifest = parse_manifest(raw)
            names = {blob.digest: blob_name(blob.digest) for blob in (manifest.config, *manifest.layers)}
            layers = tuple(names[layer.digest] for layer in manifest.layers)
            if raw.digest == entry.digest and (names[manifest.config.digest], layers) == (image.config, image.layers):
                self._names = names
                return raw
        return None

    def _make_manifest(self, image: _SavedImage) -> RawManifest:
        content = self._read(image.config)
        config = parse_config(content)
        if len(config.diff_ids) != len(image.layers) or len(image.layers) > MOST_LAYERS:
            raise ImageError(
                f"{self._where} has {len(image.layers)} layers, its configuration speaks of {len(config.diff_ids)}",
                reason="BadManifest",
            )
        config_digest = Digest.of(content)
        self._names[config_digest] = image.config
        layers = [self._layer(name, diff_id) for name, diff_id in zip(image.layers, config.diff_ids, strict=True)]
        described = Descriptor(media_type=OCI_CONFIG, digest=config_digest, size_bytes=len(content))
        return Manifest(media_type=OCI_MANIFEST, config=described, layers=tuple(layers)).to_raw()

    def _layer(self, name: str, diff_id: Digest) -> Descriptor:
        """A plain layer is its tar archive, whose digest the configuration tells; a compressed one must be hashed."""
        with closing(self._files.open(name)) as reader:
            compression = detect_compression(reader.read(_HEAD_BYTES))
        if compression not in _SUFFIXES:
            raise ImageError(f"the layer {name[:200]!r} is compressed with {compression}", hint="use gzip, zstd or none")
        digest = diff_id if compression is Compression.NONE else self._hash(name)
        self._names[digest] = name
        media_type = OCI_LAYER + _SUFFIXES[compression]
        return Descriptor(media_type=media_type, digest=digest, size_bytes=self._files.find(name).size_bytes)

    def _hash(self, name: str) -> Digest:
        content = hashlib.sha256()
        with closing(self._files.open(name)) as reader:
            while chunk := reader.read(MIB):
                content.update(chunk)
        return Digest("sha256", content.hexdigest())

    def _read(self, name: str) -> bytes:
        if self._files.find(name).size_bytes > LARGEST_DOCUMENT_BYTES:
            raise ImageError(f"{name[:200]!r} in {self._where} is larger than {LARGEST_DOCUMENT_BYTES} bytes", reason="BadManifest")
        content = bytearray()
        with closing(self._files.open(name)) as reader:
            while chunk := reader.read(LARGEST_DOCUMENT_BYTES):
                content += chunk
        return bytes(content)


def open_docker_archive(path: Path, *, reference: str = "") -> DockerArchiveSource:
    """Return the image ``reference`` of the archive at ``path``; the only image when that is empty."""
    where = f"docker-archive:{path}"
    index = open_tar_index(path, where=where)
    return docker_archive_source(index, reference=reference, where=where)


def docker_archive_source(index: TarIndex, *, reference: str, where: str) -> DockerArchiveSource:
    """Return the image ``reference`` of an open archive, which is closed when there is none."""
    try:
        return DockerArchiveSource(index, reference=reference, where=where)
    except BaseException:
        index.close()
        raise


def _parse_saved_images(content: bytes, *, where: str) -> list[_SavedImage]:
    entries = parse_json(content, what=f"{_MANIFEST_FILE} in {where}")
    if not isinstance(entries, list):
        raise ImageError(f"{_MANIFEST_FILE} in {where} is not a list", reason="BadManifest")
    return [_saved_image(entry, where) for entry in entries]


def _saved_image(entry: Any, where: str) -> _SavedImage:
    config, layers, names = (entry.get(key) for key in ("Config", "Layers", "RepoTags")) if isinstance(entry, dict) else (None,) * 3
    names = names or []  # docker writes null for an image without a name
    if not isinstance(config, str) or not isinstance(layers, list) or not isinstance(names, list):
        raise ImageError(f"{_MANIFEST_FILE} in {where} does not name a configuration and layers", reason="BadManifest")
    if not all(isinstance(text, str) for text in (*layers, *names)):
        raise ImageError(f"{_MANIFEST_FILE} in {where} has a name that is no text", reason="BadManifest")
    return _SavedImage(config=config, layers=tuple(layers), references=tuple(_references(names)))


def _references(names: list[str]) -> Iterator[ImageReference]:
    """Yield the names that are references; docker also writes ``<none>:<none>``."""
    for name in names:
        try:
            yield ImageReference.parse(name)
        except UsageError:
            continue


class DockerArchiveWriter:
    """An image on its way into a docker archive at the beginning of the file ``descriptor``."""

    def __init__(self, descriptor: int, *, reference: ImageReference | None, where: str) -> None:
        self._blobs = ArchiveBlobs(descriptor, where=where)
        self._reference = reference
        self._where = where

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the blob is there already."""
        return self._blobs.has(digest)

    def open_blob_writer(self) -> ArchiveBlobWriter:
        """Begin a blob; only one at a time."""
        return self._blobs.open_writer()

    def write_manifest(self, manifest: RawManifest, *, is_top: bool) -> None:
        """Add a manifest; the top one completes the archive.

        Raises:
            UsageError: It lists several platforms, of which docker takes only one.
        """
        if manifest.is_index or not is_top:
            raise UsageError(f"{self._where} holds an image for one platform", hint="choose one with --platform")
        self._blobs.add(manifest.digest, manifest.content)
        self._blobs.finish(self._closing_files(manifest))

    def _closing_files(self, raw: RawManifest) -> dict[str, bytes]:
        manifest = parse_manifest(raw)
        saved = {
            "Config": blob_name(manifest.config.digest),
            "RepoTags": [_tag(self._reference)] if self._reference else None,
            "Layers": [blob_name(layer.digest) for layer in manifest.layers],
        }
        annotations = {}
        if self._reference:
            annotations = {ANNOTATION_IMAGE_NAME: _tag(self._reference), ANNOTATION_TAG: self._reference.tag or "latest"}
        return {**layout_files(raw, annotations=annotations), _MANIFEST_FILE: canonical_json([saved])}


def _tag(reference: ImageReference) -> str:
    return f"{reference.name}:{reference.tag or 'latest'}"


class DockerArchiveTarget:
    """A place for one image in a new file at ``path``, which appears with the manifest and replaces what was there.

    Args:
        reference: The name that ``docker load`` gives the image; none when empty.
    """

    def __init__(self, path: Path, *, reference: str = "") -> None:
        require_directory(path)
        name = ImageReference.parse(reference) if reference else None
        remove_stale(path.parent, stem=path.name)
        self._path = path
        self._file = PartialFile(path.parent, stem=path.name)
        self._writer = DockerArchiveWriter(self._file.descriptor, reference=name, where=f"docker-archive:{path}")

    def has_blob(self, digest: Digest) -> bool:
        return self._writer.has_blob(digest)

    def open_blob_writer(self, *, size_bytes: int | None = None) -> ArchiveBlobWriter:
        if size_bytes is not None:
            require_free_bytes(self._path.parent, size_bytes, purpose="write the archive")
        return self._writer.open_blob_writer()

    def write_manifest(self, manifest: RawManifest, *, is_top: bool = True) -> None:
        self._writer.write_manifest(manifest, is_top=is_top)
        self._file.publish(self._path)

    def close(self) -> None:
        self._file.discard()
