"""A place for one image in memory, at the seam where registries and layouts are; and images made by hand for it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from imagekit.base.errors import NotFoundError, VerificationError
from registrydisk.digest import Digest
from registrydisk.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, RawManifest


class MemoryWriter:
    """A blob that is being written."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._content = bytearray()

    def write(self, data: bytes | memoryview, /) -> None:
        self._content += data

    def commit(self, digest: Digest) -> None:
        if Digest.of(bytes(self._content)) != digest:
            raise VerificationError("the store computed another digest")
        self._store.blobs[digest] = bytes(self._content)

    def abort(self) -> None:
        self._content.clear()


@dataclass
class MemoryStore:
    """An ImageSource and an ImageTarget; ``opened`` lists the blobs in the order of opening them."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[Digest, RawManifest] = field(default_factory=dict)
    top: RawManifest | None = None
    opened: list[Digest] = field(default_factory=list)

    def has_blob(self, digest: Digest) -> bool:
        return digest in self.blobs

    def open_blob_writer(self, *, size_bytes: int | None = None) -> MemoryWriter:
        return MemoryWriter(self)

    def write_manifest(self, manifest: RawManifest, *, is_top: bool = True) -> None:
        self.manifests[manifest.digest] = manifest
        if is_top:
            self.top = manifest

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        found = self.top if digest is None else self.manifests.get(digest)
        if found is None:
            raise NotFoundError("no such manifest")
        return found

    def open_blob(self, descriptor: Descriptor, *, offset_bytes: int = 0) -> io.BytesIO:
        if descriptor.digest not in self.blobs:
            raise NotFoundError("no such blob")
        self.opened.append(descriptor.digest)
        return io.BytesIO(self.blobs[descriptor.digest][offset_bytes:])

    def close(self) -> None:
        """Nothing is held."""

    def add_blob(self, content: bytes, media_type: str) -> Descriptor:
        """Store a blob and return its descriptor."""
        digest = Digest.of(content)
        self.blobs[digest] = content
        return Descriptor(media_type=media_type, digest=digest, size_bytes=len(content))


def tar_file(name: str, content: bytes = b"", **facts: object) -> tuple[tarfile.TarInfo, bytes]:
    """Return one member for ``tar_archive``; ``facts`` are TarInfo's attributes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in facts.items():
        setattr(member, key, value)
    return member, content


def tar_archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an archive as Python's own tarfile writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def image_of(
    layers: Sequence[bytes],
    *,
    compress: Callable[[bytes], bytes] = gzip.compress,
    media_type: str = f"{OCI_LAYER}+gzip",
    diff_ids: Sequence[Digest] | None = None,
    config: dict[str, object] | None = None,
) -> MemoryStore:
    """Return a store with an image of these tar archives, base first."""
    store = MemoryStore()
    descriptors = tuple(store.add_blob(compress(layer), media_type) for layer in layers)
    digests = [str(digest) for digest in (diff_ids if diff_ids is not None else [Digest.of(layer) for layer in layers])]
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": digests}, **(config or {})}
    described = store.add_blob(json.dumps(document).encode(), OCI_CONFIG)
    store.write_manifest(Manifest(media_type=OCI_MANIFEST, config=described, layers=descriptors).to_raw())
    return store
