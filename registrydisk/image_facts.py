"""What can be told of an image and of the disk in it without pulling it.

Our own images say what disk they carry in annotations. Of others, the beginning of the layer is read and given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagekit.base.errors import ImageError
from imagekit.base.progress import Progress
from imagekit.base.units import format_size
from imagekit.image import DiskFormat
from registrydisk.blob import read_blob
from registrydisk.digest import Digest
from registrydisk.image_config import read_config
from registrydisk.image_scan import scan_image
from registrydisk.labels import ANNOTATION_FORMAT, ANNOTATION_SHA256, ANNOTATION_TITLE, ANNOTATION_VIRTUAL_SIZE
from registrydisk.manifest import LARGEST_DOCUMENT_BYTES, Descriptor, Manifest, Platform, RawManifest, parse_index, parse_manifest
from registrydisk.selection import machine_platform, select_manifest
from registrydisk.store import ImageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskDescription:
    """A disk as the image tells of it, nothing of which is verified.

    Attributes:
        known_from: ``annotations``, or ``layer`` when the layer's beginning was read.
        name: The disk's file name.
        virtual_size_bytes: What a guest sees; None when the beginning does not tell it.
        sha256: Of the disk's bytes as they lie in the image; empty when unknown.
        findings: What makes it unsafe, in plain words.
    """

    known_from: str
    name: str
    format: DiskFormat
    virtual_size_bytes: int | None
    sha256: str = ""
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """One layer as the manifest tells of it."""

    media_type: str
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """One image.

    Attributes:
        digest: Of the image's manifest.
        top_digest: Of what the name leads to: the index, or the same manifest.
        platforms: What the index lists; empty without one.
        size_bytes: Bytes to pull: configuration and layers.
        disk: None when there is no disk in the image.
    """

    name: str
    digest: Digest
    top_digest: Digest
    media_type: str
    platform: str
    platforms: tuple[str, ...]
    created: str
    size_bytes: int
    layers: tuple[LayerFacts, ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    disk: DiskDescription | None


def choose_image(source: ImageSource, *, platform: Platform | None) -> tuple[RawManifest, Descriptor, Manifest]:
    """Return the top document, and the image to tell of: a single image needs to fit nobody's machine."""
    top = source.read_manifest()
    if top.is_index or platform is not None:
        return top, *select_manifest(source, platform=platform or _only_platform(top))
    return top, top.descriptor(), parse_manifest(top)


def describe_image(source: ImageSource, *, name: str, platform: Platform | None, progress: Progress) -> ImageFacts:
    """Return what is known of the image, reading at most the beginning of its layers.

    Raises:
        ImageError: The image is malformed, or there is none for the platform.
    """
    top, descriptor, manifest = choose_image(source, platform=platform)
    config = read_config(source, manifest)
    listed = parse_index(top).manifests if top.is_index else ()
    return ImageFacts(
        name=name,
        digest=descriptor.digest,
        top_digest=top.digest,
        media_type=manifest.media_type,
        platform=str(config.platform),
        platforms=tuple(str(entry.platform) for entry in listed if entry.platform and entry.platform.os != "unknown"),
        created=config.created,
        size_bytes=manifest.config.size_bytes + sum(layer.size_bytes for layer in manifest.layers),
        layers=tuple(
            LayerFacts(media_type=layer.media_type, digest=layer.digest, size_bytes=layer.size_bytes) for layer in manifest.layers
        ),
        labels=config.labels,
        annotations=manifest.annotations,
        disk=_annotated_disk(manifest.annotations) or _peeked_disk(source, descriptor, manifest, progress=progress),
    )


def read_document(source: ImageSource, *, platform: Platform | None, is_config: bool) -> bytes:
    """Return the bytes of the configuration, or of the manifest: the top document when no platform is named."""
    if not is_config and platform is None:
        return source.read_manifest().content
    _, descriptor, manifest = choose_image(source, platform=platform)
    if is_config:
        return read_blob(source, manifest.config, most_bytes=LARGEST_DOCUMENT_BYTES)
    return source.read_manifest(descriptor.digest).content


def format_facts(facts: ImageFacts) -> str:
    """Return the facts for a reader, one a line."""
    lines = [
        ("image", facts.name),
        ("digest", str(facts.digest)),
        ("platform", facts.platform + (f" (of {', '.join(facts.platforms)})" if facts.platforms else "")),
        ("created", facts.created or "unknown"),
        ("size", f"{format_size(facts.size_bytes)} in {len(facts.layers)} layer{'' if len(facts.layers) == 1 else 's'}"),
        *_disk_lines(facts.disk),
        *((f"label {key}", value) for key, value in sorted(facts.labels.items())),
    ]
    return "\n".join(_one_line(f"{name + ':':<14} {value}") for name, value in lines)


def _disk_lines(disk: DiskDescription | None) -> list[tuple[str, str]]:
    if disk is None:
        return [("disk", "none")]
    size = "unknown" if disk.virtual_size_bytes is None else format_size(disk.virtual_size_bytes)
    lines = [("disk", f"{disk.name}, {disk.format.value}, virtual size {size} (told by the {disk.known_from})")]
    if disk.sha256:
        lines.append(("disk sha256", disk.sha256))
    return lines + [("unsafe", finding) for finding in disk.findings]


def _one_line(text: str) -> str:
    """Return a text that others wrote so that it cannot forge lines or steer a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _only_platform(top: RawManifest) -> Platform:
    platforms = [entry.platform for entry in parse_index(top).manifests if entry.platform and entry.platform.os != "unknown"]
    return platforms[0] if len(platforms) == 1 else machine_platform()


def _annotated_disk(annotations: Mapping[str, str]) -> DiskDescription | None:
    """Return the disk that annotations speak of; others may have written them, so anything strange counts as absent."""
    virtual_size, image_format = annotations.get(ANNOTATION_VIRTUAL_SIZE, ""), annotations.get(ANNOTATION_FORMAT, "")
    if image_format not in set(DiskFormat) or not virtual_size.isdecimal() or len(virtual_size) > 18:
        return None
    return DiskDescription(
        known_from="annotations",
        name=annotations.get(ANNOTATION_TITLE, ""),
        format=DiskFormat(image_format),
        virtual_size_bytes=int(virtual_size),
        sha256=annotations.get(ANNOTATION_SHA256, ""),
    )


def _peeked_disk(source: ImageSource, descriptor: Descriptor, manifest: Manifest, *, progress: Progress) -> DiskDescription | None:
    try:
        scan = scan_image(source, descriptor, manifest, is_quick=True, progress=progress)
    except ImageError as error:
        progress.note(f"the layers cannot be read: {error.message}")
        return None
    for file in scan.files:
        if file.head is not None:
            return DiskDescription(
                known_from="layer",
                name=file.entry.parts[-1],
                format=file.head.format,
                virtual_size_bytes=file.head.virtual_size_bytes,
                findings=tuple(finding.message for finding in file.head.findings),
            )
    return None
