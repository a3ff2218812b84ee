"""Image configurations (OCI image-spec 1.1, config.md), which docker writes in the same shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imagekit.base.errors import ImageError
from registrydisk.blob import read_blob
from registrydisk.digest import Digest
from registrydisk.manifest import LARGEST_DOCUMENT_BYTES, Manifest, Platform, canonical_json, parse_document
from registrydisk.store import ImageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """How one step of the image came to be; ``is_empty_layer`` for a step that made no layer."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    is_empty_layer: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        texts = {"created": self.created, "created_by": self.created_by, "comment": self.comment}
        return {**_without_empty(texts), **({"empty_layer": True} if self.is_empty_layer else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image says of itself.

    Attributes:
        env: ``NAME=value`` texts.
        created: RFC 3339, or empty.
        diff_ids: Digest of each layer's tar archive before compression, base first; as many as the manifest has layers.
    """

    architecture: str
    os: str
    variant: str = ""
    created: str = ""
    author: str = ""
    env: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    working_directory: str = ""
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[HistoryEntry, ...] = ()

    @property
    def platform(self) -> Platform:
        """For what machine the image says it is."""
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes: equal configurations have equal digests."""
        container = _without_empty(
            {
                "Env": list(self.env),
                "Labels": dict(self.labels),
                "Entrypoint": list(self.entrypoint),
                "Cmd": list(self.command),
                "User": self.user,
                "WorkingDir": self.working_directory,
            }
        )
        document = _without_empty({"variant": self.variant, "created": self.created, "author": self.author, "config": container})
        document |= {"architecture": self.architecture, "os": self.os}
        document["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in self.diff_ids]}
        if self.history:
            document["history"] = [entry.to_json() for entry in self.history]
        return canonical_json(document)


def parse_config(content: bytes) -> ImageConfig:
    """Return the configuration in ``content``.

    Raises:
        ImageError: It is none, with reason BadManifest.
    """
    document = parse_document(content, what="image configuration")
    container = _object(document, "config")
    return ImageConfig(
        architecture=_text(document, "architecture"),
        os=_text(document, "os"),
        variant=_text(document, "variant"),
        created=_text(document, "created"),
        author=_text(document, "author"),
        env=_texts(container, "Env"),
        labels=_labels(container),
        entrypoint=_texts(container, "Entrypoint"),
        command=_texts(container, "Cmd"),
        user=_text(container, "User"),
        working_directory=_text(container, "WorkingDir"),
        diff_ids=tuple(Digest.parse(text) for text in _texts(_object(document, "rootfs"), "diff_ids")),
        history=_history(document),
    )


def read_config(source: ImageSource, manifest: Manifest) -> ImageConfig:
    """Return the configuration that ``manifest`` names, verified.

    Raises:
        ImageError: It is too large, malformed, or has another number of layers than the manifest, with reason BadManifest.
        VerificationError: The bytes are not what the manifest says.
    """
    config = parse_config(read_blob(source, manifest.config, most_bytes=LARGEST_DOCUMENT_BYTES))
    if len(config.diff_ids) != len(manifest.layers):
        raise ImageError(
            f"the configuration speaks of {len(config.diff_ids)} layers, the manifest of {len(manifest.layers)}",
            reason="BadManifest",
            hint="this may be an artifact and not an image that can run",
        )
    return config


def _history(document: dict[str, Any]) -> tuple[HistoryEntry, ...]:
    entries = document.get("history") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _malformed("history", "a list of objects")
    return tuple(
        HistoryEntry(
            created=_text(entry, "created"),
            created_by=_text(entry, "created_by"),
            comment=_text(entry, "comment"),
            is_empty_layer=entry.get("empty_layer") is True,
        )
        for entry in entries
    )


def _labels(container: dict[str, Any]) -> Mapping[str, str]:
    labels = _object(container, "Labels")
    if not all(isinstance(value, str) for value in labels.values()):
        raise _malformed("Labels", "a map of texts")
    return labels


def _object(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    if value is None:  # docker writes null for what is empty
        return {}
    if not isinstance(value, dict):
        raise _malformed(key, "an object")
    return value


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _malformed(key, "a text")
    return value


def _texts(document: dict[str, Any], key: str) -> tuple[str, ...]:
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _malformed(key, "a list of texts")
    return tuple(value)


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value}


def _malformed(key: str, expected: str) -> ImageError:
    return ImageError(f"{key} in the image configuration is not {expected}", reason="BadManifest")
