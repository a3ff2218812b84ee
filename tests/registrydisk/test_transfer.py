"""Copies keep every byte, move nothing twice, and let nothing through that is not what its digest says."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from imagekit.base.errors import ImageError, VerificationError
from imagekit.base.progress import SilentProgress
from registrydisk.access import RegistryAccess
from registrydisk.blob import read_blob
from registrydisk.copy_run import Extent, copy_between, default_pull_target
from registrydisk.digest import Digest
from registrydisk.layout import LayoutTarget, open_layout_source
from registrydisk.manifest import (
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    RawManifest,
    canonical_json,
    parse_index,
    parse_manifest,
)
from registrydisk.reference import ImageReference, Location
from registrydisk.remote import RemoteSource, RemoteTarget, list_tags, open_remote_source, open_remote_target
from registrydisk.store import BlobReader, BlobWriter, ImageSource, ImageTarget
from registrydisk.tags import add_tag
from registrydisk.transfer import copy_image
from tests.registrydisk.samples import MemoryImage, layer_tar
from tests.support.services import RunningRegistry

QUIET = SilentProgress()
PLAIN = RegistryAccess(is_plain_http=True)


class MemoryTarget:
    """A target in memory that remembers the order of things."""

    def __init__(self) -> None:
        self.image = MemoryImage()
        self.manifests: list[RawManifest] = []
        self.asked: list[Digest] = []
        self.aborted = 0

    def has_blob(self, digest: Digest) -> bool:
        self.asked.append(digest)
        return digest in self.image.blobs

    def open_blob_writer(self, *, size_bytes: int | None = None) -> BlobWriter:
        return _MemoryWriter(self, size_bytes)

    def write_manifest(self, manifest: RawManifest, *, is_top: bool = True) -> None:
        self._require_children(manifest)
        self.manifests.append(manifest)
        if is_top:
            self.image.top = manifest.digest

    def close(self) -> None:
        """Nothing is held."""

    def _require_children(self, raw: RawManifest) -> None:
        if raw.is_index:
            assert {entry.digest for entry in parse_index(raw).manifests} <= {manifest.digest for manifest in self.manifests}
        else:
            manifest = parse_manifest(raw)
            assert {blob.digest for blob in (manifest.config, *manifest.layers)} <= set(self.image.blobs)


class _MemoryWriter:
    def __init__(self, target: MemoryTarget, size_bytes: int | None) -> None:
        self._target = target
        self._size_bytes = size_bytes
        self._content: bytearray | None = bytearray()

    def write(self, data: bytes | memoryview, /) -> None:
        assert self._content is not None
        self._content += data

    def commit(self, digest: Digest) -> None:
        assert self._content is not None
        assert len(self._content) == self._size_bytes
        self._target.image.blobs[digest] = bytes(self._content)
        self._content = None

    def abort(self) -> None:
        self._target.aborted += self._content is not None
        self._content = None


@pytest.mark.parametrize("platforms", [("linux/amd64",), ("linux/amd64", "linux/arm64")])
def test_everything_is_copied_children_first(platforms: tuple[str, ...]) -> None:
    image, target = MemoryImage(), MemoryTarget()
    image.add_index(*platforms)
    assert copy_image(image, target, platform=None, progress=QUIET) == image.top == target.image.top
    assert target.image.blobs == image.blobs
    assert {raw.digest: raw for raw in target.manifests} == image.manifests
    assert target.aborted == 0


def test_one_platform_is_copied_alone() -> None:
    image, target = MemoryImage(), MemoryTarget()
    index = image.add_index("linux/amd64", "linux/arm64")
    arm = parse_index(index).manifests[1]
    assert copy_image(image, target, platform=Platform.parse("arm64"), progress=QUIET) == arm.digest
    assert target.manifests == [image.manifests[arm.digest]]
    assert len(target.image.blobs) == 2


def test_what_is_there_is_not_read() -> None:
    image, target = MemoryImage(), MemoryTarget()
    layer = parse_manifest(image.add_image()).layers[0]
    target.image.blobs[layer.digest] = b"there"
    copy_image(image, target, platform=None, progress=QUIET)
    assert layer.digest not in image.opened
    image.opened.clear()
    copy_image(image, target, platform=None, progress=QUIET)
    assert not image.opened


def test_equal_blobs_move_once() -> None:
    image, target = MemoryImage(), MemoryTarget()
    manifest = parse_manifest(image.add_image())
    image.add_manifest(Manifest(media_type=OCI_MANIFEST, config=manifest.config, layers=manifest.layers * 3).to_raw())
    copy_image(image, target, platform=None, progress=QUIET)
    assert len(image.opened) == 2


class ChangingImage(MemoryImage):
    """Bytes change on the way, the first ``bad_times`` times."""

    bad_times = 0

    def open_blob(self, descriptor: Descriptor, *, offset_bytes: int = 0) -> BlobReader:
        reader = super().open_blob(descriptor, offset_bytes=offset_bytes)
        if self.bad_times == 0:
            return reader
        self.bad_times -= 1
        return io.BytesIO(reader.read(1 << 20)[:-1] + b"!")


def test_one_bad_transfer_is_tried_again() -> None:
    image, target = ChangingImage(), MemoryTarget()
    image.add_image()
    image.bad_times = 1
    copy_image(image, target, platform=None, progress=QUIET)
    assert target.image.blobs == image.blobs
    assert target.aborted == 1


def test_bytes_that_stay_wrong_are_refused() -> None:
    image, target = ChangingImage(), MemoryTarget()
    image.add_image()
    image.bad_times = 9
    with pytest.raises(VerificationError, match="is not what its digest says"):
        copy_image(image, target, platform=None, progress=QUIET)
    assert not target.image.blobs
    assert not target.manifests


def nested_too_deep(image: MemoryImage) -> None:
    descriptor = image.add_image().descriptor()
    for _ in range(3):
        descriptor = image.add_manifest(Index(media_type=OCI_INDEX, manifests=(descriptor,)).to_raw()).descriptor()


def two_sizes(image: MemoryImage) -> None:
    manifest = parse_manifest(image.add_image())
    layer = manifest.layers[0]
    other = Descriptor(media_type=layer.media_type, digest=layer.digest, size_bytes=1)
    image.add_manifest(Manifest(media_type=OCI_MANIFEST, config=manifest.config, layers=(layer, other)).to_raw())


def too_many(image: MemoryImage) -> None:
    manifest = parse_manifest(image.add_image())
    entries = []
    for number in range(257):
        copy = Manifest(media_type=OCI_MANIFEST, config=manifest.config, layers=(), annotations={"n": str(number)})
        entries.append(image.add_manifest(copy.to_raw()).descriptor())
    image.add_manifest(Index(media_type=OCI_INDEX, manifests=tuple(entries)).to_raw())


def unknown_entry(image: MemoryImage) -> None:
    entry = Descriptor(media_type="application/x", digest=Digest.of(b""), size_bytes=0)
    image.add_manifest(Index(media_type=OCI_INDEX, manifests=(entry,)).to_raw())


def named_by_sha512(image: MemoryImage) -> None:
    raw = image.add_image()
    digest = Digest.of(raw.content, algorithm="sha512")
    image.manifests[digest] = raw
    entry = Descriptor(media_type=raw.media_type, digest=digest, size_bytes=len(raw.content))
    image.add_manifest(Index(media_type=OCI_INDEX, manifests=(entry,)).to_raw())


@pytest.mark.parametrize("make", [nested_too_deep, two_sizes, too_many, unknown_entry, named_by_sha512])
def test_hostile_images_move_nothing(make: Callable[[MemoryImage], None]) -> None:
    image, target = MemoryImage(), MemoryTarget()
    make(image)
    with pytest.raises(ImageError):
        copy_image(image, target, platform=None, progress=QUIET)
    assert not target.image.blobs


def test_urls_of_foreign_layers_are_not_looked_at() -> None:
    """The layer is asked for where every blob is; the test has no mark that would let it open a socket."""
    image, target = MemoryImage(), MemoryTarget()
    layer = image.add_blob(layer_tar(b"x"), "application/vnd.oci.image.layer.nondistributable.v1.tar")
    config = image.add_blob(b"{}", "application/vnd.oci.image.config.v1+json")
    foreign = {**layer.to_json(), "urls": ["http://127.0.0.1:1/layer"]}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.to_json(), "layers": [foreign]}
    raw = image.add_manifest(RawManifest(media_type=OCI_MANIFEST, content=canonical_json(document)))
    assert copy_image(image, target, platform=None, progress=QUIET) == raw.digest
    assert target.image.blobs[layer.digest] == image.blobs[layer.digest]


def layout(path: Path, image: MemoryImage) -> Location:
    copy_image(image, LayoutTarget(path, tag="1"), platform=None, progress=QUIET)
    return Location.parse(f"oci:{path}:1")


@pytest.mark.parametrize(
    ("target", "extent", "is_index"),
    [
        ("oci:{}/y:2", Extent.WHAT_FITS, True),
        ("oci:{}/y:2", Extent.THIS_MACHINE, False),
        ("oci-archive:{}/y.tar", Extent.EVERYTHING, True),
        ("docker-archive:{}/y.tar", Extent.WHAT_FITS, False),
    ],
)
def test_extent_of_an_index(tmp_path: Path, target: str, extent: Extent, is_index: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registrydisk.copy_run.machine_platform", lambda: Platform.parse("arm64"))
    image = MemoryImage()
    index = image.add_index("linux/amd64", "linux/arm64")
    source, there = layout(tmp_path / "x", image), Location.parse(target.format(tmp_path))
    copied = copy_between(source, there, extent=extent, access=RegistryAccess(), progress=QUIET)
    assert copied.digest == (index.digest if is_index else parse_index(index).manifests[1].digest)
    assert copied.pinned == f"{there}@{copied.digest}"


def test_single_images_are_copied_whatever_they_are_for(tmp_path: Path) -> None:
    image = MemoryImage()
    raw = image.add_image(platform="linux/riscv64")
    target = Location.parse(f"docker-archive:{tmp_path}/y.tar")
    copied = copy_between(
        layout(tmp_path / "x", image), target, extent=Extent.THIS_MACHINE, access=RegistryAccess(), progress=QUIET
    )
    assert copied.digest == raw.digest


def test_pulled_images_get_the_repositorys_last_name() -> None:
    assert str(default_pull_target(ImageReference.parse("quay.io/me/fedora:42"))) == "oci:fedora:42"
    assert str(default_pull_target(ImageReference.parse(f"quay.io/fedora@{Digest.of(b'')}"))) == "oci:fedora"


def remote(registry: RunningRegistry, name: str) -> ImageReference:
    return ImageReference.parse(f"{registry.host}/{name}")


@pytest.mark.process
@pytest.mark.network
class TestRegistry:
    """Against a real registry."""

    def test_there_and_back(self, registry: RunningRegistry, tmp_path: Path) -> None:
        image = MemoryImage()
        image.add_index("linux/amd64", "linux/arm64")
        here = layout(tmp_path / "x", image)
        there = Location.parse(f"docker://{registry.host}/transfer/disk:1")
        back = Location.parse(f"oci:{tmp_path}/back:1")
        for source, target in ((here, there), (there, back)):
            copied = copy_between(source, target, extent=Extent.EVERYTHING, access=PLAIN, progress=QUIET)
            assert copied.digest == image.top
        source_again = open_layout_source(tmp_path / "back", tag="1")
        for digest, content in image.blobs.items():
            assert (
                read_blob(source_again, Descriptor(media_type="x", digest=digest, size_bytes=len(content)), most_bytes=1 << 20)
                == content
            )

    def test_blobs_of_the_same_registry_are_mounted(self, registry: RunningRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
        image = MemoryImage()
        image.add_image(b"mounted")
        self._push(image, open_remote_target(remote(registry, "transfer/from:1"), access=PLAIN))
        source = open_remote_source(remote(registry, "transfer/from:1"), access=PLAIN)
        monkeypatch.setattr(RemoteSource, "open_blob", _no_bytes)
        monkeypatch.setattr(RemoteTarget, "open_blob_writer", _no_bytes)
        self._push(source, open_remote_target(remote(registry, "transfer/to:1"), access=PLAIN))
        source.close()
        monkeypatch.undo()
        back = open_remote_source(remote(registry, "transfer/to:1"), access=PLAIN)
        manifest = parse_manifest(back.read_manifest())
        assert all(read_blob(back, blob, most_bytes=1 << 20) for blob in (manifest.config, *manifest.layers))
        back.close()

    def test_tags_are_added_without_a_pull(self, registry: RunningRegistry) -> None:
        image = MemoryImage()
        raw = image.add_image(b"tagged")
        self._push(image, open_remote_target(remote(registry, "transfer/tags:1"), access=PLAIN))
        tagged = add_tag(remote(registry, "transfer/tags:1"), "stable", access=PLAIN)
        assert tagged.pinned == f"{registry.host}/transfer/tags:stable@{raw.digest}"
        assert list_tags(remote(registry, "transfer/tags"), access=PLAIN) == ["1", "stable"]

    @staticmethod
    def _push(source: ImageSource, target: ImageTarget) -> None:
        try:
            copy_image(source, target, platform=None, progress=QUIET)
        finally:
            target.close()


def _no_bytes(*_arguments: object, **_options: object) -> BlobWriter:
    raise AssertionError("bytes would move")
