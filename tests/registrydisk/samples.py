"""Small images in memory, sound ones and broken ones, for the tests of places, selection and transfer."""

from __future__ import annotations

import gzip
import io
import tarfile
from dataclasses import dataclass, field

from imagekit.base.errors import NotFoundError
from registrydisk.digest import Digest
from registrydisk.image_config import ImageConfig
from registrydisk.manifest import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    RawManifest,
)
from registrydisk.store import BlobReader, ImageTarget


def layer_tar(content: bytes, *, name: str = "disk/disk.img") -> bytes:
    """Return a layer with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size, member.uid, member.gid, member.mode = len(content), 107, 107, 0o444
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@dataclass(kw_only=True)
class MemoryImage:
    """A source in memory, which counts what is read; tests may change what it holds."""

    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[Digest, RawManifest] = field(default_factory=dict)
    top: Digest | None = None
    opened: list[Digest] = field(default_factory=list)
    is_closed: bool = False

    def add_blob(self, content: bytes, media_type: str) -> Descriptor:
        digest = Digest.of(content)
        self.blobs[digest] = content
        return Descriptor(media_type=media_type, digest=digest, size_bytes=len(content))

    def add_manifest(self, raw: RawManifest) -> RawManifest:
        self.manifests[raw.digest] = raw
        self.top = raw.digest
        return raw

    def add_image(self, disk: bytes = b"disk", *, platform: str = "linux/amd64", is_gzip: bool = True) -> RawManifest:
        """Add an image of one layer; it becomes the top."""
        wanted = Platform.parse(platform)
        archive = layer_tar(disk)
        layer = (
            self.add_blob(gzip.compress(archive, mtime=0), f"{OCI_LAYER}+gzip") if is_gzip else self.add_blob(archive, OCI_LAYER)
        )
        config = ImageConfig(
            architecture=wanted.architecture,
            os=wanted.os,
            variant=wanted.variant,
            diff_ids=(Digest.of(archive),),
            labels={"a": "b"},
        )
        described = self.add_blob(config.to_bytes(), OCI_CONFIG)
        return self.add_manifest(Manifest(media_type=OCI_MANIFEST, config=described, layers=(layer,)).to_raw())

    def add_index(self, *platforms: str) -> RawManifest:
        """Add an image for each platform and the index of them; it becomes the top."""
        entries = []
        for platform in platforms:
            raw = self.add_image(platform.encode(), platform=platform)
            entries.append(raw.descriptor(platform=Platform.parse(platform)))
        return self.add_manifest(Index(media_type=OCI_INDEX, manifests=tuple(entries)).to_raw())

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        wanted = self.top if digest is None else digest
        assert wanted is not None
        if wanted not in self.manifests:
            raise NotFoundError(f"no manifest {wanted}")
        return self.manifests[wanted]

    def open_blob(self, descriptor: Descriptor, *, offset_bytes: int = 0) -> BlobReader:
        self.opened.append(descriptor.digest)
        if descriptor.digest not in self.blobs:
            raise NotFoundError(f"no blob {descriptor.digest}")
        return io.BytesIO(self.blobs[descriptor.digest][offset_bytes:])

    def close(self) -> None:
        self.is_closed = True


def write_image(image: MemoryImage, target: ImageTarget) -> None:
    """Write everything that ``image`` holds into a target, as simply as can be."""
    for digest, content in image.blobs.items():
        writer = target.open_blob_writer(size_bytes=len(content))
        writer.write(content)
        writer.commit(digest)
    for digest, raw in image.manifests.items():
        target.write_manifest(raw, is_top=digest == image.top)
