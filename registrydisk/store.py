"""The seam between images and the places that hold them: registries, layouts, archives and the docker daemon.

Everything that reads an image takes an ImageSource, everything that writes one an ImageTarget; ``open_source`` and
``open_target`` in ``registrydisk.places`` choose the implementation from a Location.
"""

from __future__ import annotations

from typing import Protocol

from registrydisk.digest import Digest
from registrydisk.manifest import Descriptor, RawManifest


class BlobReader(Protocol):
    """A blob that is being read; NOT verified, callers wrap it in a VerifyingStream."""

    def read(self, size_bytes: int, /) -> bytes:
        """Return 1 to ``size_bytes`` bytes, or ``b""`` at the end."""
        ...

    def close(self) -> None:
        """Give back the connection or file; also before the end."""
        ...


class ImageSource(Protocol):
    """A place to read one image from."""

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        """Return the image's top document, or the one with ``digest``; the bytes are verified against it.

        Raises:
            NotFoundError: There is none.
        """
        ...

    def open_blob(self, descriptor: Descriptor, *, offset_bytes: int = 0) -> BlobReader:
        """Open a blob for reading from ``offset_bytes``; broken connections are resumed by the implementation.

        Raises:
            NotFoundError: There is none.
        """
        ...

    def close(self) -> None:
        """Give back what the source holds."""
        ...


class BlobWriter(Protocol):
    """A blob that is being written; its digest need not be known before the end."""

    def write(self, data: bytes | memoryview, /) -> None:
        """Add bytes."""
        ...

    def commit(self, digest: Digest) -> None:
        """Make the blob exist under ``digest``, which the caller computed over exactly what it wrote.

        Raises:
            VerificationError: The other side computed another digest.
        """
        ...

    def abort(self) -> None:
        """Forget what was written; safe to call twice and after ``commit``."""
        ...


class ImageTarget(Protocol):
    """A place to write one image to; blobs first, then the manifest that names them."""

    def has_blob(self, digest: Digest) -> bool:
        """Return whether the blob is already there."""
        ...

    def open_blob_writer(self, *, size_bytes: int | None = None) -> BlobWriter:
        """Begin a blob; ``size_bytes`` when it is known."""
        ...

    def write_manifest(self, manifest: RawManifest, *, is_top: bool = True) -> None:
        """Store a manifest or index; ``is_top`` gives it the tag that the target was opened with."""
        ...

    def close(self) -> None:
        """Give back what the target holds. What was not named by a manifest may be dropped."""
        ...
