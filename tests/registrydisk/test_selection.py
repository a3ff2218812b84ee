"""The image for a platform is found or its absence is told with what there is."""

from __future__ import annotations

import itertools

import pytest

from imagekit.base.errors import ImageError, VerificationError
from registrydisk.blob import read_blob
from registrydisk.digest import Digest
from registrydisk.image_config import parse_config
from registrydisk.manifest import OCI_INDEX, OCI_LAYER, Descriptor, Index, Manifest, Platform
from registrydisk.selection import MOST_MANIFESTS, machine_platform, select_manifest
from tests.registrydisk.samples import MemoryImage


def chosen(image: MemoryImage, manifest: Manifest) -> str:
    return str(parse_config(image.blobs[manifest.config.digest]).platform)


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [
        (["linux/amd64", "linux/arm64"], "linux/arm64", "linux/arm64"),
        (["linux/amd64", "linux/arm64/v8"], "linux/arm64", "linux/arm64/v8"),
        (["linux/arm64"], "linux/arm64/v8", "linux/arm64"),
        (["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", "linux/arm/v6"),
        (["linux/arm/v5", "linux/arm/v7"], "linux/arm/v6", "linux/arm/v5"),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm", "linux/arm/v7"),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/amd64/v4", "linux/amd64/v3"], "linux/amd64", "linux/amd64/v3"),
        (["windows/amd64", "linux/amd64"], "linux/amd64", "linux/amd64"),
    ],
)
def test_platform_is_chosen_in_any_order(there: list[str], wanted: str, expected: str) -> None:
    for order in itertools.permutations(there):
        image = MemoryImage()
        image.add_index(*order)
        descriptor, manifest = select_manifest(image, platform=Platform.parse(wanted))
        assert chosen(image, manifest) == expected
        assert image.manifests[descriptor.digest] == manifest.to_raw()


@pytest.mark.parametrize(
    ("there", "wanted"), [(["linux/amd64"], "linux/arm64"), (["linux/arm/v7"], "linux/arm/v6"), (["linux/amd64"], "windows/amd64")]
)
@pytest.mark.parametrize("is_index", [True, False])
def test_absence_tells_what_there_is(there: list[str], wanted: str, is_index: bool) -> None:
    image = MemoryImage()
    if is_index:
        image.add_index(*there)
    else:
        image.add_image(platform=there[0])
    with pytest.raises(ImageError, match=f"no image for {wanted}, only for {there[0]}") as caught:
        select_manifest(image, platform=Platform.parse(wanted))
    assert caught.value.reason == "PlatformMismatch"
    assert f"--platform {there[0]}" in caught.value.hint


def test_default_is_this_machine() -> None:
    image = MemoryImage()
    image.add_index(str(machine_platform()), "linux/s390x")
    _, manifest = select_manifest(image)
    assert chosen(image, manifest) == str(machine_platform())


def test_attestations_are_passed_over() -> None:
    image = MemoryImage()
    image.add_index("unknown/unknown", "linux/amd64")
    _, manifest = select_manifest(image, platform=Platform.parse("amd64"))
    assert chosen(image, manifest) == "linux/amd64"
    with pytest.raises(ImageError) as caught:
        select_manifest(image, platform=Platform.parse("arm64"))
    assert "unknown" not in caught.value.message


def nested(image: MemoryImage, depth: int) -> None:
    raw = image.add_image()
    descriptor = raw.descriptor(platform=Platform.parse("linux/amd64"))
    for _ in range(depth):
        descriptor = image.add_manifest(Index(media_type=OCI_INDEX, manifests=(descriptor,)).to_raw()).descriptor()


def test_two_levels_of_indexes_are_followed_and_no_more() -> None:
    image = MemoryImage()
    nested(image, 2)
    assert chosen(image, select_manifest(image, platform=Platform.parse("amd64"))[1]) == "linux/amd64"
    nested(image, 3)
    with pytest.raises(ImageError, match="nests more than 2") as caught:
        select_manifest(image, platform=Platform.parse("amd64"))
    assert caught.value.reason == "BadManifest"


def test_endless_indexes_are_refused() -> None:
    image = MemoryImage()
    entry = image.add_image().descriptor(platform=Platform.parse("linux/s390x"))
    image.add_manifest(Index(media_type=OCI_INDEX, manifests=(entry,) * (MOST_MANIFESTS + 1)).to_raw())
    with pytest.raises(ImageError, match="more than"):
        select_manifest(image, platform=Platform.parse("amd64"))


@pytest.mark.parametrize("lie", ["size", "type"])
def test_lies_of_an_index_are_seen(lie: str) -> None:
    image = MemoryImage()
    raw = image.add_image()
    entry = Descriptor(
        media_type="application/vnd.docker.distribution.manifest.v2+json" if lie == "type" else raw.media_type,
        digest=raw.digest,
        size_bytes=len(raw.content) + (lie == "size"),
        platform=Platform.parse("linux/amd64"),
    )
    image.add_manifest(Index(media_type=OCI_INDEX, manifests=(entry,)).to_raw())
    with pytest.raises(ImageError, match="but its index says"):
        select_manifest(image, platform=Platform.parse("amd64"))


@pytest.mark.parametrize(
    "change", [lambda content: content + b"x", lambda content: content[:-1], lambda content: b"x" + content[1:]]
)
def test_small_blobs_are_verified(change: object) -> None:
    assert callable(change)
    image = MemoryImage()
    blob = image.add_blob(b"content", OCI_LAYER)
    assert read_blob(image, blob, most_bytes=7) == b"content"
    image.blobs[blob.digest] = change(b"content")
    with pytest.raises(VerificationError):
        read_blob(image, blob, most_bytes=7)


def test_empty_blobs_are_read() -> None:
    image = MemoryImage()
    assert read_blob(image, image.add_blob(b"", OCI_LAYER), most_bytes=0) == b""
    with pytest.raises(ImageError):
        read_blob(image, Descriptor(media_type=OCI_LAYER, digest=Digest.of(b""), size_bytes=8), most_bytes=7)
