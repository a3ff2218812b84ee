"""Reading OCI image layouts (image-spec 1.1, image-layout.md): the same files in a directory or in a tar archive."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from imagekit.base.errors import ImageError, NotFoundError, UsageError, VerificationError
from imagekit.base.files import open_regular
from registrydisk.digest import Digest
from registrydisk.manifest import (
    LARGEST_DOCUMENT_BYTES,
    OCI_INDEX,
    Descriptor,
    Index,
    RawManifest,
    media_type_of,
    parse_document,
    parse_index,
)
from registrydisk.store import BlobReader

ANNOTATION_TAG = "org.opencontainers.image.ref.name"
INDEX_FILE = "index.json"
MARKER_FILE = "oci-layout"
MARKER_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'
_MARKER_BYTES = 4096
_MOST_LISTED = 20


class LayoutFiles(Protocol):
    """Files by their path inside a layout."""

    def open(self, name: str, *, offset_bytes: int = 0) -> BlobReader:
        """Open a regular file.

        Raises:
            NotFoundError: There is none.
        """
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


def blob_name(digest: Digest) -> str:
    """Return where a layout keeps a blob."""
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def listed(names: Sequence[str]) -> str:
    """Return the first of ``names`` in one line: an archive may have a hundred thousand."""
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


class LayoutSource:
    """One image of a layout: the one with ``tag``, or the only one when no tag is given.

    Args:
        where: The layout in the user's words, for messages.
    """

    def __init__(self, files: LayoutFiles, *, tag: str, where: str) -> None:
        self._files = files
        self._tag = tag
        self._where = where
        self._require_layout()

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        entry = self._entry() if digest is None else None
        digest = entry.digest if entry is not None else digest
        assert digest is not None
        try:
            content = _read_whole(self._files, blob_name(digest))
        except NotFoundError as error:
            raise NotFoundError(f"{self._where} lacks the manifest {digest}") from error
        if Digest.of(content, algorithm=digest.algorithm) != digest:
            raise VerificationError(f"manifest {digest} in {self._where} is not what its digest says")
        if entry is not None and entry.size_bytes != len(content):
            raise VerificationError(
                f"manifest {digest} in {self._where} has {len(content)} bytes, not {entry.size_bytes}", reason="SizeMismatch"
            )
        return RawManifest(media_type=entry.media_type if entry is not None else media_type_of(content), content=content)

    def open_blob(self, descriptor: Descriptor, *, offset_bytes: int = 0) -> BlobReader:
        try:
            return self._files.open(blob_name(descriptor.digest), offset_bytes=offset_bytes)
        except NotFoundError as error:
            raise NotFoundError(f"{self._where} lacks the blob {descriptor.digest}") from error

    def close(self) -> None:
        self._files.close()

    def _require_layout(self) -> None:
        try:
            marker = parse_document(_read_whole(self._files, MARKER_FILE, most_bytes=_MARKER_BYTES), what=MARKER_FILE)
        except NotFoundError as error:
            raise NotFoundError(f"{self._where} is not an OCI image layout: it has no file {MARKER_FILE}") from error
        version = marker.get("imageLayoutVersion")
        if not isinstance(version, str) or not version.startswith("1."):
            raise ImageError(f"{self._where} has the layout version {version!r}, only 1.x is supported")

    def _entry(self) -> Descriptor:
        index = parse_index(read_layout_index(self._files))
        tags = sorted(filter(None, (entry.annotations.get(ANNOTATION_TAG, "") for entry in index.manifests)))
        hint = f"its tags: {listed(tags)}" if tags else "none of its images has a tag"
        if self._tag:
            found = [entry for entry in index.manifests if entry.annotations.get(ANNOTATION_TAG) == self._tag]
            if not found:
                raise NotFoundError(f"{self._where} has no image with the tag {self._tag!r}", hint=hint)
            return found[-1]
        if not index.manifests:
            raise NotFoundError(f"{self._where} has no image")
        if len(index.manifests) > 1:
            raise UsageError(f"{self._where} has {len(index.manifests)} images", hint=f"add :TAG to choose one; {hint}")
        return index.manifests[0]


def read_layout_index(files: LayoutFiles) -> RawManifest:
    """Return the layout's ``index.json``; an empty one when there is none yet."""
    try:
        return RawManifest(media_type=OCI_INDEX, content=_read_whole(files, INDEX_FILE))
    except NotFoundError:
        return Index(media_type=OCI_INDEX, manifests=()).to_raw()


class LayoutDirectory:
    """A layout's files in a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, name: str, *, offset_bytes: int = 0) -> BlobReader:
        file = os.fdopen(open_regular(self._path / name), "rb", buffering=0)
        file.seek(offset_bytes)
        return file

    def close(self) -> None:
        """Nothing is held."""


def open_layout_source(path: Path, *, tag: str = "") -> LayoutSource:
    """Return the image ``tag`` of the layout in the directory ``path``; the only image when no tag is given.

    Raises:
        NotFoundError: There is no layout.
    """
    if not path.is_dir():
        raise NotFoundError(f"there is no directory {path}")
    return LayoutSource(LayoutDirectory(path), tag=tag, where=f"oci:{path}")


def _read_whole(files: LayoutFiles, name: str, *, most_bytes: int = LARGEST_DOCUMENT_BYTES) -> bytes:
    reader = files.open(name)
    try:
        content = bytearray()
        while chunk := reader.read(most_bytes + 1 - len(content)):
            content += chunk
            if len(content) > most_bytes:
                raise ImageError(f"{name} is larger than {most_bytes} bytes", reason="BadManifest")
        return bytes(content)
    finally:
        reader.close()
