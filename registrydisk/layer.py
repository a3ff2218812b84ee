"""Writing a disk's layer: one read of the disk makes the archive, its digests and its compressed form.

The archive is ``disk/`` and one file in it. Its first member in the compressed stream holds the headers, the next ones
the disk, block by block, and the last one the end, so that the disk begins at a member of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from imagekit.base.errors import VerificationError
from registrydisk.compressor import BlockCompressor, LayerMode
from registrydisk.digest import Digest
from registrydisk.manifest import OCI_LAYER, Descriptor
from registrydisk.store import BlobWriter, ImageTarget
from registrydisk.tar_header import END_OF_ARCHIVE, EntryKind, TarHeader, format_header, padding
from registrydisk.whiteouts import DISK_DIRECTORY

QEMU_USER_ID = 107
"""The user that runs QEMU in KubeVirt's pods, and so must be able to read the disk."""

_DIRECTORY_MODE = 0o555
_FILE_MODE = 0o444
_QEMU_USER = "qemu"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFile:
    """The file to put into the layer; ``trailing_entries`` are whole tar entries that follow it."""

    name: str
    size_bytes: int
    modified_seconds: int = 0
    trailing_entries: tuple[bytes, ...] = ()

    def head(self) -> bytes:
        """Return what the archive begins with, up to the disk's first byte."""
        return format_header(self._header(f"{DISK_DIRECTORY}/", EntryKind.DIRECTORY, 0)) + format_header(
            self._header(f"{DISK_DIRECTORY}/{self.name}", EntryKind.FILE, self.size_bytes)
        )

    def tail(self) -> bytes:
        """Return what the archive ends with, from the disk's last byte on."""
        return padding(self.size_bytes) + b"".join(self.trailing_entries) + END_OF_ARCHIVE

    def archive_bytes(self) -> int:
        """Return the length of the whole archive."""
        return len(self.head()) + self.size_bytes + len(self.tail())

    def _header(self, name: str, kind: EntryKind, size_bytes: int) -> TarHeader:
        return TarHeader(
            name=name,
            kind=kind,
            size_bytes=size_bytes,
            mode=_DIRECTORY_MODE if kind is EntryKind.DIRECTORY else _FILE_MODE,
            uid=QEMU_USER_ID,
            gid=QEMU_USER_ID,
            user=_QEMU_USER,
            group=_QEMU_USER,
            modified_seconds=self.modified_seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLayer:
    """A layer that is in the target: its descriptor, and the digests of the archive and of the disk alone."""

    descriptor: Descriptor
    diff_id: Digest
    payload_digest: Digest


def write_layer(blocks: Iterable[bytes], file: DiskFile, target: ImageTarget, *, compressor: BlockCompressor) -> WrittenLayer:
    """Write the layer of a disk to ``target``.

    Args:
        blocks: The disk in order, in blocks of ``compressor.BLOCK_BYTES`` but for the last.

    Raises:
        VerificationError: The disk is not as long as ``file`` says, with reason SizeMismatch.
    """
    is_plain = compressor.mode is LayerMode.NONE
    writer = target.open_blob_writer(size_bytes=file.archive_bytes() if is_plain else None)
    try:
        with ThreadPoolExecutor(1, "hash archive") as archive_thread, ThreadPoolExecutor(1, "hash disk") as payload_thread:
            archive, payload = _OrderedHash(archive_thread), _OrderedHash(payload_thread)
            # The archive's own digest is the blob's where nothing is compressed: it need not be computed twice.
            pieces = _archive_pieces(blocks, file, archive=None if is_plain else archive, payload=payload)
            digest, size_bytes = _write_all(compressor.compressed(pieces), writer)
            diff_id, payload_digest = digest if is_plain else archive.digest(), payload.digest()
        writer.commit(digest)
    except BaseException:
        writer.abort()
        raise
    descriptor = Descriptor(media_type=OCI_LAYER + compressor.mode.suffix, digest=digest, size_bytes=size_bytes)
    return WrittenLayer(descriptor=descriptor, diff_id=diff_id, payload_digest=payload_digest)


def _write_all(pieces: Iterator[bytes], writer: BlobWriter) -> tuple[Digest, int]:
    blob, size_bytes = hashlib.sha256(), 0
    for piece in pieces:
        writer.write(piece)
        blob.update(piece)
        size_bytes += len(piece)
    return Digest("sha256", blob.hexdigest()), size_bytes


def _archive_pieces(
    blocks: Iterable[bytes], file: DiskFile, *, archive: _OrderedHash | None, payload: _OrderedHash
) -> Iterator[bytes]:
    """Yield the archive, hashing it and the disk in it on the way."""
    seen_bytes = 0
    for piece, is_disk in _labelled_pieces(blocks, file):
        if archive is not None:
            archive.update(piece)
        if is_disk:
            payload.update(piece)
            seen_bytes += len(piece)
        yield piece
    if seen_bytes != file.size_bytes:
        why = f"{seen_bytes} bytes came, {file.size_bytes} were promised"
        raise VerificationError(f"the disk {file.name} changed while it was read: {why}", reason="SizeMismatch")


def _labelled_pieces(blocks: Iterable[bytes], file: DiskFile) -> Iterator[tuple[bytes, bool]]:
    yield file.head(), False
    for block in blocks:
        yield block, True
    yield file.tail(), False


class _OrderedHash:
    """A sha256 that a thread of its own computes, at most one block behind."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._hash = hashlib.sha256()
        self._last: Future[None] | None = None

    def update(self, block: bytes) -> None:
        """Take the next bytes, once the ones before are done."""
        if self._last is not None:
            self._last.result()
        self._last = self._thread.submit(self._hash.update, block)

    def digest(self) -> Digest:
        """Return the digest of everything."""
        if self._last is not None:
            self._last.result()
        return Digest("sha256", self._hash.hexdigest())
