"""What inspect tells: from annotations without a layer, from a layer's beginning without them, and never a lie taken over."""

from __future__ import annotations

import gzip
import os

import pytest

from imagekit.base.progress import SilentProgress
from imagekit.image import DiskFormat
from registrydisk.digest import Digest
from registrydisk.image_config import ImageConfig
from registrydisk.image_facts import ImageFacts, describe_image, format_facts, read_document
from registrydisk.labels import ANNOTATION_FORMAT, ANNOTATION_SHA256, ANNOTATION_TITLE, ANNOTATION_VIRTUAL_SIZE
from registrydisk.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, Platform
from registrydisk.store import BlobReader
from tests.registrydisk.samples import MemoryImage, layer_tar

ANNOTATIONS = {
    ANNOTATION_TITLE: "fedora.qcow2",
    ANNOTATION_FORMAT: "qcow2",
    ANNOTATION_VIRTUAL_SIZE: str(10 << 30),
    ANNOTATION_SHA256: "a" * 64,
}


def image_of(disk: bytes, *, annotations: dict[str, str] | None = None, labels: dict[str, str] | None = None) -> MemoryImage:
    image = MemoryImage()
    archive = layer_tar(disk, name="disk/fedora.img")
    layer = image.add_blob(gzip.compress(archive, mtime=0), f"{OCI_LAYER}+gzip")
    config = ImageConfig(architecture="s390x", os="linux", diff_ids=(Digest.of(archive),), labels=labels or {})
    described = image.add_blob(config.to_bytes(), OCI_CONFIG)
    image.add_manifest(Manifest(media_type=OCI_MANIFEST, config=described, layers=(layer,), annotations=annotations or {}).to_raw())
    return image


def facts_of(image: MemoryImage, platform: str = "") -> ImageFacts:
    wanted = Platform.parse(platform) if platform else None
    return describe_image(image, name="it", platform=wanted, progress=SilentProgress())


def test_annotations_are_enough() -> None:
    image = image_of(b"x", annotations=ANNOTATIONS)
    facts = facts_of(image)
    assert facts.disk is not None
    assert (facts.disk.known_from, facts.disk.name, facts.disk.format) == ("annotations", "fedora.qcow2", DiskFormat.QCOW2)
    assert facts.disk.virtual_size_bytes == 10 << 30
    assert len(image.opened) == 1, "only the configuration"


@pytest.mark.parametrize(
    "lie",
    [
        {ANNOTATION_VIRTUAL_SIZE: "-1"},
        {ANNOTATION_VIRTUAL_SIZE: "9" * 5000},
        {ANNOTATION_FORMAT: "exe"},
        {ANNOTATION_VIRTUAL_SIZE: ""},
    ],
)
def test_strange_annotations_count_as_absent(lie: dict[str, str]) -> None:
    facts = facts_of(image_of(b"x" * 1024, annotations={**ANNOTATIONS, **lie}))
    assert facts.disk is not None
    assert (facts.disk.known_from, facts.disk.name, facts.disk.format) == ("layer", "fedora.img", DiskFormat.RAW)
    assert facts.disk.virtual_size_bytes == 1024


class CountingImage(MemoryImage):
    """Counts the bytes that are read from blobs."""

    read_bytes = 0

    def open_blob(self, descriptor: Descriptor, *, offset_bytes: int = 0) -> BlobReader:
        return _CountingReader(self, super().open_blob(descriptor, offset_bytes=offset_bytes))


class _CountingReader:
    def __init__(self, image: CountingImage, reader: BlobReader) -> None:
        self._image = image
        self._reader = reader

    def read(self, size_bytes: int, /) -> bytes:
        piece = self._reader.read(size_bytes)
        self._image.read_bytes += len(piece)
        return piece

    def close(self) -> None:
        self._reader.close()


def test_only_the_beginning_of_the_layer_is_read() -> None:
    whole = image_of(os.urandom(48 << 20))
    image = CountingImage(blobs=whole.blobs, manifests=whole.manifests, top=whole.top)
    assert facts_of(image).disk is not None
    assert image.read_bytes < 24 << 20


def test_image_without_a_disk() -> None:
    image = MemoryImage()
    layer = image.add_blob(layer_tar(b"x", name="etc/passwd"), OCI_LAYER)
    config = ImageConfig(architecture="amd64", os="linux", diff_ids=(layer.digest,)).to_bytes()
    image.add_manifest(Manifest(media_type=OCI_MANIFEST, config=image.add_blob(config, OCI_CONFIG), layers=(layer,)).to_raw())
    assert facts_of(image).disk is None
    assert "disk:          none" in format_facts(facts_of(image))


def test_index_tells_of_one_image_and_lists_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registrydisk.image_facts.machine_platform", lambda: Platform.parse("amd64"))
    image = MemoryImage()
    index = image.add_index("linux/amd64", "linux/arm64", "unknown/unknown")
    facts = facts_of(image)
    assert (facts.platform, facts.platforms, facts.top_digest) == ("linux/amd64", ("linux/amd64", "linux/arm64"), index.digest)
    assert facts_of(image, "arm64").platform == "linux/arm64"
    assert read_document(image, platform=None, is_config=False) == index.content


def test_an_index_of_one_image_needs_no_platform() -> None:
    image = MemoryImage()
    image.add_index("linux/riscv64")
    assert facts_of(image).platform == "linux/riscv64"
    assert b"riscv64" in read_document(image, platform=None, is_config=True)


def test_documents_are_printed_as_they_are() -> None:
    image = image_of(b"x")
    assert read_document(image, platform=None, is_config=False) == image.read_manifest().content
    assert read_document(image, platform=Platform.parse("s390x"), is_config=False) == image.read_manifest().content
    assert Digest.of(read_document(image, platform=None, is_config=True)) in image.blobs


def test_foreign_texts_cannot_steer_the_terminal() -> None:
    text = format_facts(facts_of(image_of(b"x", labels={"a\nforged": "\x1b[2J\nforged: yes", "name": "Größe"})))
    assert "\x1b" not in text
    assert not any(line.startswith("forged") for line in text.splitlines())
    assert "label name:    Größe" in text
