"""OCI image layouts in one tar file: read without unpacking, written in one pass without a second copy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from imagekit.base.errors import ImageError, UsageError
from imagekit.base.files import require_free_bytes, translate_os_error
from registrydisk.digest import Digest
from registrydisk.layout_source import ANNOTATION_TAG, INDEX_FILE, MARKER_CONTENT, MARKER_FILE, LayoutSource, blob_name
from registrydisk.manifest import OCI_INDEX, Index, RawManifest
from registrydisk.partial_file import PartialFile, remove_stale
from registrydisk.tar_index import open_tar_index
from registrydisk.tar_writer import TarWriter


def open_oci_archive(path: Path, *, tag: str = "") -> LayoutSource:
    """Return the image ``tag`` of the archive at ``path``; the only image when no tag is given."""
    where = f"oci-archive:{path}"
    index = open_tar_index(path, where=where)
    try:
        return LayoutSource(index, tag=tag, where=where)
    except BaseException:
        index.close()
        raise


class ArchiveBlobs:
    """Blobs and manifests on their way into an archive, named as in a layout."""

    def __init__(self, descriptor: int, *, where: str) -> None:
        self._tar = TarWriter(descriptor)
        self._where = where
        self._digests: set[Digest] = set()

    def has(self, digest: Digest) -> bool:
        """Return whether the blob is there already."""
        return digest in self._digests

    def open_writer(self) -> ArchiveBlobWriter:
        """Begin a blob; only one at a time."""
        return ArchiveBlobWriter(self._tar, self._digests, where=self._where)

    def add(self, digest: Digest, content: bytes) -> None:
        """Add a whole blob."""
        writer = self.open_writer()
        try:
            writer.write(content)
            writer.commit(digest)
        finally:
            writer.abort()

    def finish(self, files: Mapping[str, bytes]) -> None:
        """Add the files that are no blobs, and end the archive."""
        try:
            for name, content in sorted(files.items()):
                self._tar.add(name, content)
            self._tar.finish()
        except OSError as error:
            raise translate_os_error(error, doing=f"write {self._where}") from error


class ArchiveBlobWriter:
    """A blob at the end of an archive."""

    def __init__(self, tar: TarWriter, digests: set[Digest], *, where: str) -> None:
        self._tar = tar
        self._digests = digests
        self._where = where
        self._is_open = True
        tar.begin()

    def write(self, data: bytes | memoryview, /) -> None:
        try:
            self._tar.write(data)
        except OSError as error:
            raise translate_os_error(error, doing=f"write {self._where}") from error

    def commit(self, digest: Digest) -> None:
        if digest in self._digests:
            self.abort()
            return
        if digest.algorithm != "sha256":  # a longer name has no room in the header that was left free for it
            raise ImageError(
                f"{self._where} cannot hold {digest}", hint="only sha256 goes into an archive; copy to oci:DIR instead"
            )
        try:
            self._tar.end(blob_name(digest))
        except OSError as error:
            raise translate_os_error(error, doing=f"write {self._where}") from error
        self._is_open = False
        self._digests.add(digest)

    def abort(self) -> None:
        if self._is_open:
            self._is_open = False
            self._tar.drop()


class OciArchiveTarget:
    """A place for one image in a new file at ``path``, which appears with the top manifest and replaces what was there."""

    def __init__(self, path: Path, *, tag: str = "") -> None:
        require_directory(path)
        remove_stale(path.parent, stem=path.name)
        self._path = path
        self._tag = tag
        self._file = PartialFile(path.parent, stem=path.name)
        self._blobs = ArchiveBlobs(self._file.descriptor, where=f"oci-archive:{path}")

    def has_blob(self, digest: Digest) -> bool:
        return self._blobs.has(digest)

    def open_blob_writer(self, *, size_bytes: int | None = None) -> ArchiveBlobWriter:
        if size_bytes is not None:
            require_free_bytes(self._path.parent, size_bytes, purpose="write the archive")
        return self._blobs.open_writer()

    def write_manifest(self, manifest: RawManifest, *, is_top: bool = True) -> None:
        self._blobs.add(manifest.digest, manifest.content)
        if is_top:
            annotations = {ANNOTATION_TAG: self._tag} if self._tag else {}
            self._blobs.finish(layout_files(manifest, annotations=annotations))
            self._file.publish(self._path)

    def close(self) -> None:
        self._file.discard()


def layout_files(top: RawManifest, *, annotations: Mapping[str, str]) -> dict[str, bytes]:
    """Return the two files that make a layout of blobs, with ``top`` as its only image."""
    index = Index(media_type=OCI_INDEX, manifests=(top.descriptor(annotations=annotations),))
    return {MARKER_FILE: MARKER_CONTENT, INDEX_FILE: index.to_raw().content}


def require_directory(path: Path) -> None:
    """Raise UsageError when no archive can be made at ``path``."""
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent}", hint="make it first")
    if path.is_dir():
        raise UsageError(f"{path} is a directory", hint="name a file for the archive, or use oci: for a directory")
