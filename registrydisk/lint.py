"""What would make an image fail, or be slow, on KubeVirt, CDI or docker: one rule a function, all of them pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from imagekit.base.units import GIB, format_size
from imagekit.image import Compression, DiskFormat
from registrydisk.disk_source import RUNNABLE_FORMATS
from registrydisk.image_scan import DiskHead, ScannedFile, ScannedImage
from registrydisk.labels import (
    ANNOTATION_COMPRESSION,
    LABEL_INSTANCETYPE,
    LABEL_PAYLOAD_SHA256,
    LABEL_PREFERENCE,
    environment_of,
)
from registrydisk.layer import QEMU_USER_ID
from registrydisk.manifest import Platform
from registrydisk.tar_header import EntryKind

_LARGEST_COMMON_LAYER_BYTES = 10 * 10**9
_SAVES_NOTHING = 0.95
_MOSTLY_ZEROS = 4
_LARGE_RAW_BYTES = GIB
_BOOTABLE_LABELS = ("containers.bootc", "ostree.bootable")


class LintLevel(StrEnum):
    """ERROR: it will not run or is not what it says. WARNING: it may fail somewhere, or is slow. INFO: worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class LintFinding:
    """One thing to say about an image; ``reason`` is the stable word for machines."""

    level: LintLevel
    reason: str
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LintReport:
    """All that is to say about one image of a place."""

    platform: Platform | None
    is_complete: bool
    findings: tuple[LintFinding, ...]

    def fails(self, *, is_strict: bool) -> bool:
        """Return whether a check of this image has failed."""
        failing = {LintLevel.ERROR, LintLevel.WARNING} if is_strict else {LintLevel.ERROR}
        return any(finding.level in failing for finding in self.findings)


def lint_image(image: ScannedImage) -> LintReport:
    """Return what is to say about ``image``, the worst first."""
    findings = [finding for rule in _RULES for finding in rule(image)]
    findings.sort(key=lambda finding: list(LintLevel).index(finding.level))
    return LintReport(platform=image.platform or image.config.platform, is_complete=image.is_complete, findings=tuple(findings))


def _error(reason: str, message: str, hint: str = "") -> LintFinding:
    return LintFinding(level=LintLevel.ERROR, reason=reason, message=message, hint=hint)


def _warning(reason: str, message: str, hint: str = "") -> LintFinding:
    return LintFinding(level=LintLevel.WARNING, reason=reason, message=message, hint=hint)


def _info(reason: str, message: str, hint: str = "") -> LintFinding:
    return LintFinding(level=LintLevel.INFO, reason=reason, message=message, hint=hint)


def _number_of_disks(image: ScannedImage) -> Iterator[LintFinding]:
    if any(label in image.config.labels for label in _BOOTABLE_LABELS):
        yield _error("BootableContainer", "this is a bootable container, not a disk in a container", "make a disk of it first")
    if not image.files:
        where = f"; {image.elsewhere[0]} is in another place" if image.elsewhere else ""
        yield _error("NoDiskInImage", f"there is no file under /disk{where}", "COPY the disk into /disk/")
    if len(image.files) > 1:
        names = ", ".join(file.entry.path for file in image.files[:10])
        yield _error("AmbiguousDisk", f"there are several files under /disk: {names}", "build one image for each disk")


def _kind_and_place(image: ScannedImage) -> Iterator[LintFinding]:
    for file in image.files:
        kind = file.entry.header.kind
        if kind is not EntryKind.FILE or file.entry.is_sparse:
            what = kind.words if kind is not EntryKind.FILE else "sparse archive entry"
            yield _error("UnsafeImage", f"{file.entry.path} is a {what}", "copy the disk itself into the image")
        elif len(file.entry.parts) != 2:
            yield _error("WrongPath", f"{file.entry.path} is not directly in /disk", "KubeVirt looks into /disk only")
        elif file.entry.header.size_bytes == 0:
            yield _error("EmptyDisk", f"{file.entry.path} is empty")


def _owner_and_mode(image: ScannedImage) -> Iterator[LintFinding]:
    for file in image.files:
        header = file.entry.header
        what = f"{file.entry.path} ({header.uid}:{header.gid}, {header.mode & 0o7777:04o})"
        hint = f"COPY --chown={QEMU_USER_ID}:{QEMU_USER_ID} --chmod=0444, or registrydisk build"
        is_owner, is_group = header.uid == QEMU_USER_ID, header.gid == QEMU_USER_ID
        readable = header.mode & (0o400 if is_owner else 0o040 if is_group else 0o004)
        if not readable:
            yield _error("UnreadableDisk", f"{what} cannot be read by the user {QEMU_USER_ID} that runs QEMU", hint)
        elif not is_owner:
            yield _warning("WrongOwner", f"{what} is not owned by {QEMU_USER_ID}", hint)
        elif header.mode & 0o222:
            yield _info("WritableDisk", f"{what} is writable, though nothing ever writes to it", hint)
    directory = image.directory.header if image.directory else None
    if directory and not directory.mode & (0o100 if directory.uid == QEMU_USER_ID else 0o001):
        yield _error("UnreadableDisk", f"/disk ({directory.mode & 0o7777:04o}) cannot be entered by the user {QEMU_USER_ID}")


def _format(image: ScannedImage) -> Iterator[LintFinding]:
    for file, head in _heads(image):
        path = file.entry.path
        if head.compression is not Compression.NONE:
            yield _error("CompressedDisk", f"{path} is inside {head.compression}, which nothing unpacks", "unpack it first")
        elif head.format not in RUNNABLE_FORMATS:
            hint = "registrydisk build converts it to qcow2"
            yield _error("UnsupportedFormat", f"{path} is {head.format}, but KubeVirt runs qcow2 and raw", hint)
        for finding in head.findings:
            yield _error("UnsafeImage", f"{path}: {finding.message}", "qemu-img convert makes a disk that needs nothing else")


def _sizes(image: ScannedImage) -> Iterator[LintFinding]:
    for file, head in _heads(image):
        size_bytes, layer_bytes = file.entry.header.size_bytes, file.layer.size_bytes
        if head.format is DiskFormat.RAW and size_bytes > max(_LARGE_RAW_BYTES, _MOSTLY_ZEROS * layer_bytes):
            yield _warning(
                "SparseRaw",
                f"{file.entry.path} is a raw disk of {format_size(size_bytes)} from a layer of {format_size(layer_bytes)}: "
                "each node that pulls it writes all of it",
                "build it with --format qcow2",
            )
        if head.virtual_size_bytes is not None and head.virtual_size_bytes % 512:
            yield _warning("OddSize", f"{file.entry.path} is a disk of {head.virtual_size_bytes} bytes, no multiple of 512")
    for layer in image.manifest.layers:
        if layer.size_bytes > _LARGEST_COMMON_LAYER_BYTES:
            size = format_size(layer.size_bytes)
            yield _warning("LargeLayer", f"layer {layer.digest} has {size}; some registries refuse more than 10 GB")


def _compression(image: ScannedImage) -> Iterator[LintFinding]:
    is_stored = "engine=stored" in image.manifest.annotations.get(ANNOTATION_COMPRESSION, "")
    for file, head in _heads(image):
        media_type = file.layer.media_type
        if media_type.endswith("zstd"):
            yield _info("ZstdLayer", "the layer is zstd, which docker reads from version 23 on", "--layer-mode gzip is read by all")
        if not media_type.endswith(("gzip", "zstd")):
            if head.format is DiskFormat.RAW:
                yield _warning("UncompressedRaw", f"{file.entry.path} is a raw disk in a layer that is not compressed")
        elif file.layer.size_bytes > _SAVES_NOTHING * file.entry.header.size_bytes and not is_stored:
            yield _warning(
                "DoubleCompression",
                "the layer's compression saves nothing, for the disk is compressed itself; it costs time at each pull",
                "--layer-mode store, or auto, which finds out",
            )


def _platform(image: ScannedImage) -> Iterator[LintFinding]:
    config = image.config
    if not config.architecture or not config.os:
        yield _error("NoPlatform", "the configuration names no platform", "registrydisk build --platform linux/amd64")
    elif image.platform is not None and (image.platform.os, image.platform.architecture) != (config.os, config.architecture):
        yield _error("PlatformMismatch", f"the index says {image.platform}, the image says {config.platform}")
    elif config.os != "linux":
        yield _warning("NotLinux", f"the image is for {config.os}; nodes run linux, whatever the guest is")


def _labels(image: ScannedImage) -> Iterator[LintFinding]:
    labels = image.config.labels
    if LABEL_INSTANCETYPE not in labels or LABEL_PREFERENCE not in labels:
        hint = "registrydisk build --instancetype NAME --preference NAME"
        yield _info("NoInstancetype", "no default instance type and preference are named", hint)
    environment = set(image.config.env)
    missing = [name for name, value in environment_of(labels).items() if f"{name}={value}" not in environment]
    if missing:
        yield _warning("LabelWithoutEnvironment", f"an import by node pull sees no labels, and {missing[0]} is not set as they say")
    expected = labels.get(LABEL_PAYLOAD_SHA256)
    for file in image.files:
        if expected and file.sha256 and file.sha256 != expected.removeprefix("sha256:"):
            yield _error("ChecksumMismatch", f"the label {LABEL_PAYLOAD_SHA256} is not the sha256 of {file.entry.path}")


def _form(image: ScannedImage) -> Iterator[LintFinding]:
    for file in image.files:
        if file.entry.header.modified_seconds != _seconds(image.config.created):
            yield _info(
                "UnstableTime",
                f"{file.entry.path} has a time of its own, so building it again makes another digest",
                "registrydisk build writes one time everywhere: SOURCE_DATE_EPOCH or 0",
            )
        if file.entry.attributes:
            names = ", ".join(file.entry.attributes[:5])
            yield _info("ExtendedAttributes", f"{file.entry.path} carries extended attributes ({names}), which some stores refuse")


def _seconds(timestamp: str) -> int:
    """Return the time that an image says it was made, 0 when it says none."""
    try:
        return int(datetime.fromisoformat(timestamp).timestamp())
    except (ValueError, OverflowError):
        return 0


def _heads(image: ScannedImage) -> Iterator[tuple[ScannedFile, DiskHead]]:
    for file in image.files:
        if file.head is not None and file.entry.header.size_bytes:
            yield file, file.head


_RULES: tuple[Callable[[ScannedImage], Iterator[LintFinding]], ...] = (
    _number_of_disks,
    _kind_and_place,
    _owner_and_mode,
    _format,
    _sizes,
    _compression,
    _platform,
    _labels,
    _form,
)
