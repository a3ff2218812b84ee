"""Manifests, indexes and descriptors (OCI image-spec 1.1; Docker image manifest v2, schema 2), parsed with bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from imagekit.base.errors import ImageError, UsageError
from imagekit.base.units import MIB
from registrydisk.digest import Digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
LARGEST_DOCUMENT_BYTES = 4 * MIB
MOST_LAYERS = 128
# Go's words for architectures, which images use, and what others call them.
_ARCHITECTURES = frozenset({"386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"})
_ARCHITECTURE_NAMES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """For what machine an image is: ``linux/amd64`` or ``linux/arm/v7``."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Return the platform that a user writes; ``amd64`` alone means linux, and ``x86_64`` is ``amd64``.

        Raises:
            UsageError: It is none.
        """
        parts = text.split("/") if "/" in text else ["linux", text]
        parts[1] = _ARCHITECTURE_NAMES.get(parts[1], parts[1])
        is_known = "/" in text or parts[1] in _ARCHITECTURES
        if not 2 <= len(parts) <= 3 or not all(parts) or not is_known:
            raise UsageError(f"{text!r} is not a platform", hint="write os/architecture, like linux/amd64")
        return cls(os=parts[0], architecture=parts[1], variant=parts[2] if len(parts) == 3 else "")

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """What a manifest says of one blob or of another manifest."""

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size_bytes}
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.platform is not None:
            document["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                document["platform"]["variant"] = self.platform.variant
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class RawManifest:
    """A manifest or index as bytes, which its digest covers."""

    media_type: str
    content: bytes

    @property
    def digest(self) -> Digest:
        """The sha256 digest of the bytes."""
        return Digest.of(self.content)

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests."""
        return self.media_type in INDEX_TYPES

    def descriptor(self, *, platform: Platform | None = None, annotations: Mapping[str, str] | None = None) -> Descriptor:
        """Return how another document refers to it."""
        return Descriptor(
            media_type=self.media_type,
            digest=self.digest,
            size_bytes=len(self.content),
            platform=platform,
            annotations=annotations or {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image: its configuration and its layers, base first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_raw(self) -> RawManifest:
        """Return the canonical bytes."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_json(),
            "layers": [layer.to_json() for layer in self.layers],
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return RawManifest(media_type=self.media_type, content=canonical_json(document))


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A list of manifests, one for each platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_raw(self) -> RawManifest:
        """Return the canonical bytes."""
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [manifest.to_json() for manifest in self.manifests],
        }
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        return RawManifest(media_type=self.media_type, content=canonical_json(document))


def canonical_json(document: Any) -> bytes:
    """Return ``document`` as JSON with sorted keys and no spaces: equal documents have equal digests."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse_json(content: bytes, *, what: str) -> Any:
    """Return what the JSON text ``content`` says, which can be written again.

    Raises:
        ImageError: It is no JSON (RFC 8259), or has half of a surrogate pair, which UTF-8 cannot hold, with reason BadManifest.
    """
    try:
        document = json.loads(content, parse_constant=_refuse_constant)
        if b"\\u" in content:
            canonical_json(document)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{what} is not JSON", reason="BadManifest") from error
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def parse_document(content: bytes, *, what: str) -> dict[str, Any]:
    """Return the JSON object in ``content``.

    Raises:
        ImageError: It is too large, no JSON or no object, with reason BadManifest.
    """
    if len(content) > LARGEST_DOCUMENT_BYTES:
        raise ImageError(f"{what} is larger than {LARGEST_DOCUMENT_BYTES} bytes", reason="BadManifest")
    document = parse_json(content, what=what)
    if not isinstance(document, dict):
        raise ImageError(f"{what} is not a JSON object", reason="BadManifest")
    return document


def parse_manifest(raw: RawManifest) -> Manifest:
    """Return the image manifest in ``raw``.

    Raises:
        ImageError: It is no image manifest or breaks a bound, with reason BadManifest.
    """
    document = _typed_document(raw, MANIFEST_TYPES, "manifest")
    layers = _list(document, "layers", "manifest")
    if len(layers) > MOST_LAYERS:
        raise ImageError(f"the manifest has {len(layers)} layers, more than {MOST_LAYERS}", reason="BadManifest")
    return Manifest(
        media_type=raw.media_type,
        config=_descriptor(document.get("config"), "config"),
        layers=tuple(_descriptor(layer, "layer") for layer in layers),
        annotations=_string_map(document.get("annotations")),
    )


def parse_index(raw: RawManifest) -> Index:
    """Return the index in ``raw``.

    Raises:
        ImageError: It is no index or breaks a bound, with reason BadManifest.
    """
    document = _typed_document(raw, INDEX_TYPES, "index")
    return Index(
        media_type=raw.media_type,
        manifests=tuple(_descriptor(entry, "index entry") for entry in _list(document, "manifests", "index")),
        annotations=_string_map(document.get("annotations")),
    )


def media_type_of(content: bytes) -> str:
    """Return the media type of a manifest or index that came without one: what it says, else what its shape says.

    Raises:
        ImageError: It is neither, with reason BadManifest.
    """
    document = parse_document(content, what="manifest")
    media_type = document.get("mediaType")
    if isinstance(media_type, str):
        return media_type
    if isinstance(document.get("manifests"), list):
        return OCI_INDEX
    if isinstance(document.get("layers"), list):
        return OCI_MANIFEST
    raise ImageError("a document is neither an image manifest nor an index", reason="BadManifest")


def _typed_document(raw: RawManifest, accepted: frozenset[str], what: str) -> dict[str, Any]:
    if raw.media_type not in accepted:
        raise ImageError(f"{raw.media_type!r} is not the media type of an {what}", reason="BadManifest")
    document = parse_document(raw.content, what=what)
    if document.get("schemaVersion") != 2:
        raise ImageError(
            f"the {what} has schema version {document.get('schemaVersion')!r}, only 2 is supported", reason="BadManifest"
        )
    if document.get("mediaType", raw.media_type) != raw.media_type:
        raise ImageError(
            f"the {what} says it is {document['mediaType']!r} but was sent as {raw.media_type!r}", reason="BadManifest"
        )
    if "layers" in document and "manifests" in document:
        raise ImageError(f"the {what} is a manifest and an index at once", reason="BadManifest")
    return document


def _list(document: dict[str, Any], key: str, what: str) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list):
        raise ImageError(f"the {what} has no list of {key}", reason="BadManifest")
    return value


def _descriptor(value: Any, what: str) -> Descriptor:
    if not isinstance(value, dict):
        raise ImageError(f"a {what} is not an object", reason="BadManifest")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or not isinstance(digest, str):
        raise ImageError(f"a {what} lacks a media type or a digest", reason="BadManifest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ImageError(f"a {what} has no valid size", reason="BadManifest")
    return Descriptor(
        media_type=media_type,
        digest=Digest.parse(digest),
        size_bytes=size,
        annotations=_string_map(value.get("annotations")),
        platform=_platform(value.get("platform")),
    )


def _platform(value: Any) -> Platform | None:
    if not isinstance(value, dict):
        return None
    names = [value.get(key, "") for key in ("os", "architecture", "variant")]
    if not all(isinstance(name, str) for name in names):
        raise ImageError("a platform has a part that is no text", reason="BadManifest")
    return Platform(os=names[0], architecture=names[1], variant=names[2])


def _string_map(value: Any) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise ImageError("annotations are not a map of texts", reason="BadManifest")
    return value
