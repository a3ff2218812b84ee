"""Writing OCI image layouts in a directory (image-spec 1.1, image-layout.md).

Blobs come first and get their names when they are complete and synced; ``index.json`` is replaced last, under a lock, so
a run that was killed leaves nothing but partial files, which the next run removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from imagekit.base.errors import UsageError
from imagekit.base.files import fsync_directory, require_free_bytes, translate_os_error
from registrydisk.digest import Digest
from registrydisk.layout_source import (
    ANNOTATION_TAG,
    INDEX_FILE,
    MARKER_CONTENT,
    MARKER_FILE,
    LayoutDirectory,
    blob_name,
    open_layout_source,
    read_layout_index,
)
from registrydisk.manifest import Descriptor, RawManifest, canonical_json, parse_document, parse_index
from registrydisk.partial_file import PartialFile, remove_stale

__all__ = ["LayoutTarget", "open_layout_source"]

_STEM = "layout"


class LayoutTarget:
    """A place for one image in the layout at ``path``, which is made when it does not exist.

    Args:
        tag: Its name there; an image that has it already loses it. Without one, the layout's untagged image is replaced.

    Raises:
        UsageError: The directory holds other things.
    """

    def __init__(self, path: Path, *, tag: str = "") -> None:
        self._path = path
        self._tag = tag
        try:
            _make_layout(path)
        except OSError as error:
            raise translate_os_error(error, doing=f"make an OCI layout in {path}") from error
        remove_stale(path, stem=_STEM)

    def has_blob(self, digest: Digest) -> bool:
        path = self._path / blob_name(digest)
        return path.is_file() and not path.is_symlink()  # links are not read either

    def open_blob_writer(self, *, size_bytes: int | None = None) -> LayoutBlobWriter:
        if size_bytes is not None:
            require_free_bytes(self._path, size_bytes, purpose="write a blob")
        return LayoutBlobWriter(self._path)

    def write_manifest(self, manifest: RawManifest, *, is_top: bool = True) -> None:
        writer = self.open_blob_writer(size_bytes=len(manifest.content))
        try:
            writer.write(manifest.content)
            writer.commit(manifest.digest)
        finally:
            writer.abort()
        if is_top:
            self._name(manifest.descriptor())

    def close(self) -> None:
        """Nothing is held."""

    def _name(self, top: Descriptor) -> None:
        """Put the image into the index, in place of the one that had its tag."""
        annotations = {ANNOTATION_TAG: self._tag} if self._tag else {}
        with _locked(self._path):
            content = _renewed(read_layout_index(LayoutDirectory(self._path)), replace(top, annotations=annotations))
            writer = LayoutBlobWriter(self._path)
            try:
                writer.write(content)
                writer.publish(INDEX_FILE)
            finally:
                writer.abort()


class LayoutBlobWriter:
    """A file of a layout, a blob in general, under a temporary name until it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = PartialFile(path, stem=_STEM)

    def write(self, data: bytes | memoryview, /) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._file.descriptor, rest) :]
        except OSError as error:
            raise translate_os_error(error, doing=f"write a blob into {self._path}") from error

    def commit(self, digest: Digest) -> None:
        try:
            _make_directory((self._path / blob_name(digest)).parent)
        except OSError as error:
            raise translate_os_error(error, doing=f"write a blob into {self._path}") from error
        self.publish(blob_name(digest))

    def publish(self, name: str) -> None:
        """Make the file exist as ``name`` in the layout."""
        self._file.publish(self._path / name)

    def abort(self) -> None:
        self._file.discard()


def _renewed(index: RawManifest, top: Descriptor) -> bytes:
    """Return an index with ``top`` in place of the entry that has its tag.

    The other entries stay as they are: they may have fields that we know nothing of.
    """
    tag = top.annotations.get(ANNOTATION_TAG, "")
    entries = parse_index(index).manifests
    document = parse_document(index.content, what=INDEX_FILE)
    others = [
        raw for raw, entry in zip(document["manifests"], entries, strict=True) if entry.annotations.get(ANNOTATION_TAG, "") != tag
    ]
    return canonical_json({**document, "manifests": [*others, top.to_json()]})


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold the layout against other writers; the marker file is what they all lock."""
    descriptor = os.open(path / MARKER_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _make_layout(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is no directory", hint="an OCI layout is a directory; use oci-archive: for a file")
    path.mkdir(parents=True, exist_ok=True)
    # Listed before the marker is looked for: another writer may be making the layout at this moment, the marker first.
    has_content = any(not entry.name.startswith(".") for entry in path.iterdir())
    if has_content and not (path / MARKER_FILE).exists():
        raise UsageError(f"{path} is no OCI layout, and not empty", hint="name a new or an empty directory")
    with _locked(path) as marker:
        if os.fstat(marker).st_size == 0:  # new, or its maker was killed at this very place
            os.write(marker, MARKER_CONTENT)
            os.fsync(marker)
        _make_directory(path / "blobs")
        _make_directory(path / "blobs" / "sha256")


def _make_directory(path: Path) -> None:
    """Make a directory of a layout durably; who made the layout may have put a link there that leads out of it."""
    if path.is_symlink():
        raise UsageError(f"{path} is a link, and nothing is written through it", hint="remove it, or name another directory")
    if not path.is_dir():
        path.mkdir(exist_ok=True)
        fsync_directory(path.parent)
