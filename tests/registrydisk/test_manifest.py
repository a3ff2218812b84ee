"""Manifests are parsed with bounds, and printed so that equal ones have equal digests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError, UsageError
from registrydisk.digest import Digest
from registrydisk.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    LARGEST_DOCUMENT_BYTES,
    MOST_LAYERS,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    RawManifest,
    media_type_of,
    parse_index,
    parse_manifest,
)

WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=10)
PLATFORMS = st.builds(Platform, os=WORDS, architecture=WORDS, variant=st.one_of(st.just(""), WORDS))
DESCRIPTORS = st.builds(
    Descriptor,
    media_type=WORDS,
    digest=st.binary(max_size=8).map(Digest.of),
    size_bytes=st.integers(0, 2**62),
    annotations=st.dictionaries(WORDS, WORDS, max_size=2),
    platform=st.one_of(st.none(), PLATFORMS),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
BLOB = {"mediaType": OCI_CONFIG, "digest": str(Digest.of(b"")), "size": 2}


def raw(document: Any, media_type: str = OCI_MANIFEST) -> RawManifest:
    return RawManifest(media_type=media_type, content=json.dumps(document).encode())


def manifest_document(**changes: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": BLOB, "layers": [BLOB], **changes}


@given(
    DESCRIPTORS,
    st.lists(DESCRIPTORS, max_size=3),
    st.dictionaries(WORDS, WORDS, max_size=3),
    st.sampled_from([OCI_MANIFEST, DOCKER_MANIFEST]),
)
@settings(max_examples=60)
def test_manifests_survive_printing(
    config: Descriptor, layers: list[Descriptor], annotations: dict[str, str], media_type: str
) -> None:
    manifest = Manifest(media_type=media_type, config=config, layers=tuple(layers), annotations=annotations)
    assert parse_manifest(manifest.to_raw()) == manifest
    assert media_type_of(manifest.to_raw().content) == media_type


@given(st.lists(DESCRIPTORS, max_size=3), st.sampled_from([OCI_INDEX, DOCKER_LIST]))
@settings(max_examples=60)
def test_indexes_survive_printing(entries: list[Descriptor], media_type: str) -> None:
    index = Index(media_type=media_type, manifests=tuple(entries))
    assert parse_index(index.to_raw()) == index
    assert index.to_raw().is_index


@given(JSON)
@settings(max_examples=100)
def test_any_json_is_parsed_or_refused_in_our_words(document: Any) -> None:
    for wrapped in (document, {"schemaVersion": 2, "config": document, "layers": document}, manifest_document(layers=[document])):
        with pytest.raises(ImageError) as caught:
            parse_manifest(raw(wrapped))
        assert caught.value.reason == "BadManifest"


@given(st.binary(max_size=50))
@settings(max_examples=50)
def test_any_bytes_are_refused_in_our_words(content: bytes) -> None:
    with pytest.raises(ImageError):
        parse_manifest(RawManifest(media_type=OCI_MANIFEST, content=content))


@pytest.mark.parametrize(
    "changes",
    [
        {"schemaVersion": 1},
        {"mediaType": DOCKER_MANIFEST},
        {"manifests": []},
        {"layers": [BLOB] * (MOST_LAYERS + 1)},
        {"layers": {}},
        {"config": None},
        {"config": {**BLOB, "size": -1}},
        {"config": {**BLOB, "size": True}},
        {"config": {**BLOB, "size": 1.5}},
        {"config": {**BLOB, "digest": "sha256:../../etc/passwd"}},
        {"config": {**BLOB, "mediaType": 1}},
        {"config": {**BLOB, "annotations": {"a": 1}}},
        {"config": {**BLOB, "platform": {"os": 1}}},
        {"annotations": []},
    ],
    ids=str,
)
def test_bad_manifests_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ImageError) as caught:
        parse_manifest(raw(manifest_document(**changes)))
    assert caught.value.reason == "BadManifest"


def test_most_layers_are_taken() -> None:
    assert len(parse_manifest(raw(manifest_document(layers=[BLOB] * MOST_LAYERS))).layers) == MOST_LAYERS


def test_what_was_sent_as_something_else_is_refused() -> None:
    with pytest.raises(ImageError, match="is not the media type"):
        parse_manifest(raw(manifest_document(), OCI_INDEX))
    with pytest.raises(ImageError, match="is not the media type"):
        parse_index(raw({"schemaVersion": 2, "manifests": []}, OCI_MANIFEST))


def test_half_a_surrogate_pair_is_refused() -> None:
    content = raw(manifest_document(annotations={"a": "?"})).content
    halved, whole = content.replace(b"?", b"\\ud800"), content.replace(b"?", b"\\ud83d\\ude00")
    with pytest.raises(ImageError, match="is not JSON"):
        parse_manifest(RawManifest(media_type=OCI_MANIFEST, content=halved))
    assert parse_manifest(RawManifest(media_type=OCI_MANIFEST, content=whole)).annotations == {"a": "😀"}


def test_large_and_deep_documents_are_refused() -> None:
    padded = manifest_document(annotations={"a": "x" * LARGEST_DOCUMENT_BYTES})
    for content in (json.dumps(padded).encode(), b"[" * 500_000):
        with pytest.raises(ImageError):
            parse_manifest(RawManifest(media_type=OCI_MANIFEST, content=content))


@pytest.mark.parametrize(
    ("document", "media_type"),
    [({"manifests": []}, OCI_INDEX), ({"layers": []}, OCI_MANIFEST), ({"mediaType": DOCKER_LIST, "manifests": []}, DOCKER_LIST)],
)
def test_media_type_of_documents_that_came_without_one(document: Any, media_type: str) -> None:
    assert media_type_of(json.dumps(document).encode()) == media_type


def test_media_type_of_something_else() -> None:
    with pytest.raises(ImageError):
        media_type_of(b"{}")


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_platforms(text: str, printed: str) -> None:
    assert str(Platform.parse(text)) == printed


@pytest.mark.parametrize("text", ["", "/", "linux/", "a/b/c/d", "linux//v7", "linux", "amd46"])
def test_bad_platforms(text: str) -> None:
    with pytest.raises(UsageError):
        Platform.parse(text)


def test_layers_have_the_types_of_the_specification() -> None:
    assert f"{OCI_LAYER}+gzip" == "application/vnd.oci.image.layer.v1.tar+gzip"
