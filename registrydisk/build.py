"""Building RegistryDisk images: an image of one layer with one disk in it, straight into where it shall be.

The same disk with the same options gives the same digest on every machine and in any number of threads: all times are
one given time, owners and modes are fixed, and maps are sorted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from imagekit.base.clock import SYSTEM_CLOCK, Clock
from imagekit.base.errors import UsageError
from imagekit.base.progress import Phase, Progress
from imagekit.image import DiskFormat, ImageInfo
from registrydisk.access import RegistryAccess
from registrydisk.compressor import BlockCompressor, LayerMode, gzip_member
from registrydisk.digest import Digest
from registrydisk.disk_source import DiskOptions, DiskSource, open_disk
from registrydisk.image_config import HistoryEntry, ImageConfig
from registrydisk.labels import LABEL_PAYLOAD_SHA256, DiskFacts, environment_of
from registrydisk.layer import DiskFile, WrittenLayer, write_layer
from registrydisk.manifest import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Descriptor, Index, Manifest, Platform
from registrydisk.selection import machine_platform
from registrydisk.store import ImageTarget
from registrydisk.whiteouts import DISK_DIRECTORY

_CREATED_BY = "registrydisk build"
_ENTRYPOINT = ("no-entrypoint",)  # some runtimes refuse an image without one; nothing ever runs it
_COMPRESSED_SHARE = 0.5
_COMPRESSED_RATIO = 0.95
_DISK_NAME = re.compile(r"[^/\x00-\x1f]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One image to build.

    Attributes:
        disk: Path or http(s) URL of the disk.
        platform: What the guest runs on; this machine's when None.
        disk_name: Name of the file under /disk; from the disk's own name and format when empty.
        target_format: Convert the disk to this format; None converts only what clusters cannot run.
        level: Compression level; the mode's default when None.
        created_seconds: The one time that is written anywhere, since the epoch.
        labels: Added to our own, and stronger.
        annotations: Likewise, for the manifest.
        environment: Likewise, for the configuration.
        scratch: Where temporary files go when the disk must be converted.
        access: How the web server of a URL is reached.
    """

    disk: str
    platform: Platform | None = None
    disk_name: str = ""
    target_format: DiskFormat | None = None
    mode: LayerMode = LayerMode.AUTO
    level: int | None = None
    created_seconds: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    scratch: Path = DiskOptions().scratch
    access: RegistryAccess = field(default_factory=RegistryAccess)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """What was built; ``digest`` is the manifest's, ``size_bytes`` the layer's as it travels."""

    digest: Digest
    platform: Platform
    disk_path: str
    disk_format: DiskFormat
    virtual_size_bytes: int
    payload_digest: Digest
    payload_bytes: int
    layer_digest: Digest
    diff_id: Digest
    size_bytes: int
    compression: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIndex:
    """Images for several platforms under one digest."""

    digest: Digest
    images: tuple[BuiltImage, ...]


def build_image(request: BuildRequest, target: ImageTarget, *, progress: Progress, clock: Clock = SYSTEM_CLOCK) -> BuiltImage:
    """Build one image into ``target``, under the tag that the target was opened with.

    Raises:
        ImageError: The disk is not safe or of no known format.
        UsageError: The request contradicts itself.
    """
    built, _ = _build(request, target, progress=progress, clock=clock, is_top=True)
    return built


def build_index(
    requests: Sequence[BuildRequest], target: ImageTarget, *, progress: Progress, clock: Clock = SYSTEM_CLOCK
) -> BuiltIndex:
    """Build an image for each platform, and the index that joins them under the target's tag.

    Raises:
        UsageError: Two requests are for one platform, or as ``build_image``.
    """
    platforms = [str(request.platform or machine_platform()) for request in requests]
    if len(set(platforms)) != len(platforms):  # before anything is read or sent
        raise UsageError(f"one platform is named twice: {', '.join(platforms)}", hint="name one disk for each platform")
    built = [_build(request, target, progress=progress, clock=clock, is_top=False) for request in requests]
    descriptors = sorted((descriptor for _, descriptor in built), key=lambda descriptor: str(descriptor.platform))
    raw = Index(media_type=OCI_INDEX, manifests=tuple(descriptors)).to_raw()
    target.write_manifest(raw)
    return BuiltIndex(digest=raw.digest, images=tuple(image for image, _ in built))


def choose_mode(disk: DiskSource) -> LayerMode:
    """Return STORE for a disk that compressing would hardly make smaller, else GZIP."""
    if (disk.info.compressed_share or 0.0) > _COMPRESSED_SHARE:
        return LayerMode.STORE
    plain_bytes = compressed_bytes = 0
    for sample in disk.samples():
        plain_bytes += len(sample)
        compressed_bytes += len(gzip_member(sample, level=1))
    return LayerMode.STORE if compressed_bytes > _COMPRESSED_RATIO * plain_bytes > 0 else LayerMode.GZIP


@dataclass(frozen=True, slots=True, kw_only=True)
class _WrittenDisk:
    info: ImageInfo
    file: DiskFile
    layer: WrittenLayer
    compression: str


def _build(
    request: BuildRequest, target: ImageTarget, *, progress: Progress, clock: Clock, is_top: bool
) -> tuple[BuiltImage, Descriptor]:
    started = clock.monotonic()
    platform = request.platform or machine_platform()
    disk = _write_disk(request, target, progress=progress)
    config = _write_document(_config(request, disk.layer, platform).to_bytes(), OCI_CONFIG, target)
    annotations = {**_facts(request, disk).annotations(), **request.annotations}
    layers = (disk.layer.descriptor,)
    raw = Manifest(media_type=OCI_MANIFEST, config=config, layers=layers, annotations=annotations).to_raw()
    target.write_manifest(raw, is_top=is_top)
    built = BuiltImage(
        digest=raw.digest,
        platform=platform,
        disk_path=f"/{DISK_DIRECTORY}/{disk.file.name}",
        disk_format=disk.info.format,
        virtual_size_bytes=disk.info.virtual_size_bytes,
        payload_digest=disk.layer.payload_digest,
        payload_bytes=disk.file.size_bytes,
        layer_digest=disk.layer.descriptor.digest,
        diff_id=disk.layer.diff_id,
        size_bytes=disk.layer.descriptor.size_bytes,
        compression=disk.compression,
        seconds=round(clock.monotonic() - started, 3),
    )
    return built, raw.descriptor(platform=platform, annotations=annotations)


def _write_disk(request: BuildRequest, target: ImageTarget, *, progress: Progress) -> _WrittenDisk:
    options = DiskOptions(target_format=request.target_format, scratch=request.scratch, access=request.access)
    with open_disk(request.disk, options=options, progress=progress) as disk:
        mode = choose_mode(disk) if request.mode is LayerMode.AUTO else request.mode
        # A level is for the compression that the user had in mind; stored blocks have none.
        level = None if mode is LayerMode.STORE and request.mode is LayerMode.AUTO else request.level
        compressor = BlockCompressor(mode, level=level)
        name = _checked_name(request.disk_name or disk.name)
        file = DiskFile(name=name, size_bytes=disk.size_bytes, modified_seconds=request.created_seconds)
        with progress.phase("layer", disk.size_bytes) as phase:
            layer = write_layer(_counted(disk.blocks(), phase), file, target, compressor=compressor)
    return _WrittenDisk(info=disk.info, file=file, layer=layer, compression=compressor.description)


def _facts(request: BuildRequest, disk: _WrittenDisk) -> DiskFacts:
    return DiskFacts(
        title=disk.file.name,
        format=disk.info.format,
        virtual_size_bytes=disk.info.virtual_size_bytes,
        sha256=disk.layer.payload_digest,
        compression=disk.compression,
        created=_timestamp(request.created_seconds),
    )


def _config(request: BuildRequest, layer: WrittenLayer, platform: Platform) -> ImageConfig:
    labels = {LABEL_PAYLOAD_SHA256: layer.payload_digest.encoded, **request.labels}
    created = _timestamp(request.created_seconds)
    environment = {**environment_of(labels), **request.environment}
    return ImageConfig(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        created=created,
        env=tuple(sorted(f"{name}={value}" for name, value in environment.items())),
        labels=labels,
        entrypoint=_ENTRYPOINT,
        diff_ids=(layer.diff_id,),
        history=(HistoryEntry(created=created, created_by=_CREATED_BY),),
    )


def _write_document(content: bytes, media_type: str, target: ImageTarget) -> Descriptor:
    digest = Digest.of(content)
    if not target.has_blob(digest):
        writer = target.open_blob_writer(size_bytes=len(content))
        try:
            writer.write(content)
            writer.commit(digest)
        except BaseException:
            writer.abort()
            raise
    return Descriptor(media_type=media_type, digest=digest, size_bytes=len(content))


def _counted(blocks: Iterator[bytes], phase: Phase) -> Iterator[bytes]:
    for block in blocks:
        yield block
        phase.advance(len(block))


def _timestamp(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _checked_name(name: str) -> str:
    if not _DISK_NAME.fullmatch(name) or name in (".", "..") or name.startswith(".wh."):
        raise UsageError(f"{name!r} cannot be the name of the disk in the image", hint="write one plain file name, like disk.qcow2")
    return name
