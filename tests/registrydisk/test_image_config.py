"""Configurations are read as docker writes them, printed canonically, and held against the manifest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError, VerificationError
from registrydisk.digest import Digest
from registrydisk.image_config import HistoryEntry, ImageConfig, parse_config, read_config
from registrydisk.manifest import LARGEST_DOCUMENT_BYTES, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest
from tests.registrydisk.samples import MemoryImage

TEXT = st.text(max_size=8)
CONFIGS = st.builds(
    ImageConfig,
    architecture=TEXT,
    os=TEXT,
    variant=TEXT,
    created=TEXT,
    author=TEXT,
    env=st.lists(TEXT, max_size=2).map(tuple),
    labels=st.dictionaries(TEXT, TEXT, max_size=2),
    entrypoint=st.lists(TEXT, max_size=2).map(tuple),
    command=st.lists(TEXT, max_size=2).map(tuple),
    user=TEXT,
    working_directory=TEXT,
    diff_ids=st.lists(st.binary(max_size=4).map(Digest.of), max_size=3).map(tuple),
    history=st.lists(
        st.builds(HistoryEntry, created=TEXT, created_by=TEXT, comment=TEXT, is_empty_layer=st.booleans()), max_size=2
    ).map(tuple),
)


@given(CONFIGS)
@settings(max_examples=60)
def test_configurations_survive_printing(config: ImageConfig) -> None:
    assert parse_config(config.to_bytes()) == config


def test_bytes_are_canonical() -> None:
    config = ImageConfig(
        architecture="amd64", os="linux", created="1970-01-01T00:00:00Z", labels={"b": "2", "a": "1"}, entrypoint=("x",)
    )
    assert config.to_bytes() == (
        b'{"architecture":"amd64","config":{"Entrypoint":["x"],"Labels":{"a":"1","b":"2"}},"created":"1970-01-01T00:00:00Z",'
        b'"os":"linux","rootfs":{"diff_ids":[],"type":"layers"}}'
    )


def test_nulls_of_docker_are_empty() -> None:
    config = parse_config(b'{"config":{"Env":null,"Labels":null,"Cmd":null},"rootfs":{"diff_ids":null},"history":null}')
    assert config == ImageConfig(architecture="", os="")


@pytest.mark.parametrize(
    "document",
    [
        {"architecture": 1},
        {"config": []},
        {"config": {"Env": "A=b"}},
        {"config": {"Env": [1]}},
        {"config": {"Labels": {"a": 1}}},
        {"rootfs": {"diff_ids": ["sha256:x"]}},
        {"history": [1]},
        {"history": {"a": 1}},
    ],
    ids=str,
)
def test_bad_configurations_are_refused(document: Any) -> None:
    with pytest.raises(ImageError) as caught:
        parse_config(json.dumps(document).encode())
    assert caught.value.reason == "BadManifest"


def manifest_of(image: MemoryImage, config: Descriptor, *, layers: int) -> Manifest:
    layer = image.add_blob(b"layer", OCI_LAYER)
    return Manifest(media_type=OCI_MANIFEST, config=config, layers=(layer,) * layers)


def test_layers_are_counted() -> None:
    image = MemoryImage()
    config = image.add_blob(ImageConfig(architecture="amd64", os="linux", diff_ids=(Digest.of(b"layer"),)).to_bytes(), OCI_CONFIG)
    assert read_config(image, manifest_of(image, config, layers=1)).architecture == "amd64"
    with pytest.raises(ImageError, match="speaks of 1 layers, the manifest of 2"):
        read_config(image, manifest_of(image, config, layers=2))


def test_changed_configurations_are_refused() -> None:
    image = MemoryImage()
    config = image.add_blob(ImageConfig(architecture="amd64", os="linux").to_bytes(), OCI_CONFIG)
    image.blobs[config.digest] = image.blobs[config.digest].replace(b"amd64", b"arm64")
    with pytest.raises(VerificationError):
        read_config(image, manifest_of(image, config, layers=0))


def test_large_configurations_are_not_even_opened() -> None:
    image = MemoryImage()
    config = Descriptor(media_type=OCI_CONFIG, digest=Digest.of(b""), size_bytes=LARGEST_DOCUMENT_BYTES + 1)
    with pytest.raises(ImageError, match="more than"):
        read_config(image, manifest_of(image, config, layers=0))
    assert not image.opened
