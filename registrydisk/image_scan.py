"""Looking through a whole image for what lint judges: every name under /disk, the disk's head, and the digests.

Unlike ``registrydisk.payload`` it does not stop at the first thing that is wrong, for a reader wants to hear of all.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from imagekit.base.errors import ImageError
from imagekit.base.progress import Progress
from imagekit.base.units import MIB
from imagekit.compression import detect_compression
from imagekit.formats.detect import HEAD_BYTES, detect_format
from imagekit.formats.qcow2 import header_findings, parse_header
from imagekit.image import Compression, DiskFormat, Finding
from registrydisk.image_config import ImageConfig, read_config
from registrydisk.layer_stream import open_layer
from registrydisk.manifest import Descriptor, Manifest, Platform
from registrydisk.store import ImageSource
from registrydisk.tar_header import EntryKind
from registrydisk.tar_stream import TarEntry, TarStream
from registrydisk.whiteouts import DISK_DIRECTORY, Whiteouts

_DISK_ENDINGS = (".qcow2", ".img", ".raw", ".vmdk", ".vdi", ".vhd", ".vhdx", ".iso")
_MOST_KEPT = 100
_PIECE_BYTES = MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskHead:
    """What the first bytes of a disk tell; ``virtual_size_bytes`` is None where they do not tell it."""

    format: DiskFormat
    compression: Compression
    virtual_size_bytes: int | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedFile:
    """A name under /disk that shows; the last three are told of regular files only."""

    entry: TarEntry
    layer: Descriptor
    head: DiskHead | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedImage:
    """An image as lint sees it.

    Attributes:
        platform: What the index says, None without one.
        files: Everything under /disk that is no directory.
        directory: The entry of /disk itself.
        elsewhere: Names outside of /disk that look like a disk, the first ones.
        is_complete: Whether every layer was read to its end, and so every digest verified.
    """

    manifest: Manifest
    config: ImageConfig
    platform: Platform | None
    files: tuple[ScannedFile, ...]
    directory: TarEntry | None
    elsewhere: tuple[str, ...]
    is_complete: bool


def scan_image(
    source: ImageSource, descriptor: Descriptor, manifest: Manifest, *, is_quick: bool, progress: Progress
) -> ScannedImage:
    """Read an image through.

    Args:
        is_quick: Stop at the first disk's head; what comes after it is not seen, and no layer's digest is verified.

    Raises:
        VerificationError: A layer is not what its digests say.
        ImageError: A layer cannot be read at all.
    """
    config = read_config(source, manifest)
    scan = _Scan(is_quick=is_quick)
    total_bytes = sum(layer.size_bytes for layer in manifest.layers)
    with progress.phase("read", None if is_quick else total_bytes) as phase:
        for layer, diff_id in reversed(list(zip(manifest.layers, config.diff_ids, strict=True))):
            with open_layer(source, layer, diff_id=diff_id, on_bytes=phase.advance) as stream:
                tar = TarStream(stream, what=f"layer {layer.digest}")
                for entry in tar.entries():
                    if scan.shows(entry):
                        stream.allow(entry.header.size_bytes)
                        scan.files.append(_scanned(entry, tar, layer, is_quick=is_quick))
                    if scan.has_seen_enough:
                        break
                else:
                    stream.drain()
            scan.whiteouts.end_layer()
            if scan.has_seen_enough:
                break
    return ScannedImage(
        manifest=manifest,
        config=config,
        platform=descriptor.platform,
        files=tuple(scan.files),
        directory=scan.directory,
        elsewhere=tuple(scan.elsewhere),
        is_complete=not scan.has_seen_enough,
    )


class _Scan:
    """What was seen so far, layer by layer from the top."""

    def __init__(self, *, is_quick: bool) -> None:
        self._is_quick = is_quick
        self.whiteouts = Whiteouts()
        self.files: list[ScannedFile] = []
        self.directory: TarEntry | None = None
        self.elsewhere: list[str] = []

    @property
    def has_seen_enough(self) -> bool:
        """Whether nothing more shall be read."""
        return self._is_quick and bool(self.files)

    def shows(self, entry: TarEntry) -> bool:
        """Note an entry; return whether it is a file under /disk that shows."""
        is_directory = entry.header.kind is EntryKind.DIRECTORY
        if self.whiteouts.note(entry.parts, is_directory=is_directory):
            return False
        if entry.parts[:1] != (DISK_DIRECTORY,):
            if entry.parts and entry.parts[-1].lower().endswith(_DISK_ENDINGS) and len(self.elsewhere) < _MOST_KEPT:
                self.elsewhere.append(entry.path)
            return False
        if is_directory:
            if len(entry.parts) == 1 and self.directory is None:
                self.directory = entry
            return False
        return len(self.files) < _MOST_KEPT


def _scanned(entry: TarEntry, tar: TarStream, layer: Descriptor, *, is_quick: bool) -> ScannedFile:
    if entry.header.kind is not EntryKind.FILE:
        return ScannedFile(entry=entry, layer=layer)
    head = b""
    content = hashlib.sha256()
    while piece := tar.read(_PIECE_BYTES):
        content.update(piece)
        if len(head) < HEAD_BYTES:
            head += piece[: HEAD_BYTES - len(head)]
        elif is_quick:
            break
    return ScannedFile(
        entry=entry,
        layer=layer,
        head=_head(head, file_size_bytes=entry.header.size_bytes),
        sha256="" if is_quick else content.hexdigest(),
    )


def _head(head: bytes, *, file_size_bytes: int) -> DiskHead:
    """Judge a disk by its first bytes; what cannot be read is a finding like any other."""
    compression = detect_compression(head)
    disk_format = DiskFormat.RAW
    virtual_size_bytes: int | None = None
    findings: tuple[Finding, ...] = ()
    try:
        disk_format = detect_format(head)
        if disk_format is DiskFormat.QCOW2:
            header = parse_header(head)
            virtual_size_bytes = header.virtual_size_bytes
            findings = header_findings(header, file_size_bytes=file_size_bytes)
        elif disk_format in (DiskFormat.RAW, DiskFormat.ISO) and compression is Compression.NONE:
            virtual_size_bytes = file_size_bytes
    except ImageError as error:
        findings = (Finding(rule="unreadable", message=error.message),)
    return DiskHead(format=disk_format, compression=compression, virtual_size_bytes=virtual_size_bytes, findings=findings)
