"""Finding the disk in an image, and reading it out in one pass.

Layers are read from the top to the base, because an upper layer hides what is beneath it (OCI image-spec, layer.md:
whiteouts). The disk is handed on as soon as it comes by; what stands after it, and in the layers beneath, is read by
``Payload.verify``, so that no byte is fetched twice and none is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from imagekit.base.errors import ImageError
from imagekit.base.files import atomic_file, partial_path, translate_os_error
from imagekit.base.progress import Progress
from imagekit.base.units import MIB, TIB, format_size
from imagekit.inspection import inspect_file, require_safe
from registrydisk.digest import Digest
from registrydisk.image_config import ImageConfig
from registrydisk.layer_stream import LayerStream, open_layer
from registrydisk.manifest import Descriptor, Manifest
from registrydisk.store import ImageSource
from registrydisk.tar_header import EntryKind
from registrydisk.tar_stream import TarEntry, TarStream
from registrydisk.whiteouts import DISK_DIRECTORY, Whiteouts

LARGEST_DISK_BYTES = 64 * TIB
_BOOTABLE_LABELS = ("containers.bootc", "ostree.bootable")
_PIECE_BYTES = MIB
_MOST_LISTED = 10
_ZEROS = bytes(_PIECE_BYTES)


class Payload:
    """The one disk of an image, being read.

    Attributes:
        path: Where it is in the image: ``disk/fedora.qcow2``.
        size_bytes: Its exact length.
    """

    def __init__(self, *, path: str, size_bytes: int, search: _Search, layer: LayerStream, tar: TarStream) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.stream = tar
        self._search = search
        self._layer = layer
        self._is_verified = False

    def verify(self) -> None:
        """Read what is left of the image: only after it the bytes of ``stream`` can be trusted.

        Raises:
            VerificationError: A layer is not what its digests say.
            ImageError: There is a second disk.
        """
        if not self._is_verified:
            self._search.finish(self._layer)
            self._is_verified = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedDisk:
    """A disk that was read out of an image: where it was, its length, and the sha256 digest of its bytes."""

    path: str
    size_bytes: int
    digest: Digest


@contextlib.contextmanager
def open_payload(
    source: ImageSource,
    manifest: Manifest,
    config: ImageConfig,
    *,
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[Payload]:
    """Open the disk of an image for reading.

    Args:
        on_bytes: Told of each piece of a layer that was fetched, from another thread.

    Raises:
        ImageError: The image has no disk (NoDiskInImage), several (AmbiguousDisk), or something unsafe in its place.
    """
    _require_disk_image(config)
    layers = _layers(manifest, config)
    with contextlib.ExitStack() as stack:
        yield _Search(source, layers, on_bytes=on_bytes).find(stack)


def extract_payload(
    source: ImageSource, manifest: Manifest, config: ImageConfig, *, target: Path, progress: Progress
) -> ExtractedDisk:
    """Write the disk of an image to the file ``target``, which appears when everything was verified.

    Zeros become holes. The disk is not converted, but one that names other files is refused.

    Raises:
        ImageError: As ``open_payload``, or the disk is not safe, with reason UnsafeImage.
        VerificationError: A layer is not what its digests say.
    """
    total_bytes = sum(layer.size_bytes for layer in manifest.layers)
    with (
        progress.phase("extract", total_bytes) as phase,
        open_payload(source, manifest, config, on_bytes=phase.advance) as payload,
        atomic_file(target) as file,
    ):
        digest = _write_sparse(payload, file, target=target)
        payload.verify()
        file.flush()
        require_safe(inspect_file(partial_path(target)), what=f"the disk {payload.path}")
    return ExtractedDisk(path=payload.path, size_bytes=payload.size_bytes, digest=digest)


def _write_sparse(payload: Payload, file: BinaryIO, *, target: Path) -> Digest:
    content = hashlib.sha256()
    try:
        while piece := payload.stream.read(_PIECE_BYTES):
            content.update(piece)
            if piece == _ZEROS[: len(piece)]:
                file.seek(len(piece), 1)
            else:
                file.write(piece)
        file.truncate(payload.size_bytes)
    except OSError as error:
        raise translate_os_error(error, doing=f"write {target}") from error
    return Digest("sha256", content.hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    descriptor: Descriptor
    diff_id: Digest


class _Search:
    """The walk through the layers: first to the disk, then to the end."""

    def __init__(self, source: ImageSource, layers: Sequence[_Layer], *, on_bytes: Callable[[int], None] | None) -> None:
        self._source = source
        self._left = list(layers)  # base first, so that the next one to read is the last
        self._on_bytes = on_bytes
        self._whiteouts = Whiteouts()
        self._disks: list[str] = []
        self._entries: Iterator[TarEntry] = iter(())

    def find(self, stack: contextlib.ExitStack) -> Payload:
        """Return the first disk; its layer stays open on ``stack``."""
        while self._left:
            with contextlib.ExitStack() as layer_stack:
                layer, tar = self._open_next(layer_stack)
                entry = self._next_disk()
                if entry is not None:
                    layer.allow(entry.header.size_bytes)
                    stack.enter_context(layer_stack.pop_all())
                    return Payload(path=entry.path, size_bytes=entry.header.size_bytes, search=self, layer=layer, tar=tar)
                layer.drain()
                self._whiteouts.end_layer()
        hint = "the disk belongs into the directory /disk of the image: COPY disk.qcow2 /disk/"
        raise ImageError(f"the image has no file under {DISK_DIRECTORY}/", reason="NoDiskInImage", hint=hint)

    def finish(self, layer: LayerStream) -> None:
        """Read what follows the disk: the rest of its layer, and the layers beneath."""
        self._note_other_disks()
        layer.drain()
        self._whiteouts.end_layer()
        while self._left and not self._whiteouts.hides_everything:
            with contextlib.ExitStack() as layer_stack:
                layer, _ = self._open_next(layer_stack)
                self._note_other_disks()
                layer.drain()
                self._whiteouts.end_layer()
        if len(self._disks) > 1:
            listed = ", ".join(sorted(self._disks)[:_MOST_LISTED])
            hint = "an image carries one disk; build one image for each"
            raise ImageError(f"the image has several files under {DISK_DIRECTORY}/: {listed}", reason="AmbiguousDisk", hint=hint)

    def _open_next(self, stack: contextlib.ExitStack) -> tuple[LayerStream, TarStream]:
        layer = self._left.pop()
        opened = open_layer(self._source, layer.descriptor, diff_id=layer.diff_id, on_bytes=self._on_bytes)
        stream = stack.enter_context(opened)
        tar = TarStream(stream, what=f"layer {layer.descriptor.digest}")
        self._entries = tar.entries()
        return stream, tar

    def _note_other_disks(self) -> None:
        while len(self._disks) <= _MOST_LISTED and self._next_disk() is not None:
            pass

    def _next_disk(self) -> TarEntry | None:
        """Return the next file under disk/ that no layer above hides."""
        for entry in self._entries:
            if self._whiteouts.note(entry.parts, is_directory=entry.header.kind is EntryKind.DIRECTORY):
                continue
            if entry.parts[:1] != (DISK_DIRECTORY,) or entry.header.kind is EntryKind.DIRECTORY:
                continue
            _require_plain_file(entry)
            self._disks.append(entry.path)
            return entry
        return None


def _require_plain_file(entry: TarEntry) -> None:
    if entry.header.kind is not EntryKind.FILE:
        where = f"{entry.path!r} in the image is a {entry.header.kind.words}"
        raise ImageError(f"{where}, not a regular file", reason="UnsafeImage", hint="copy the disk itself into the image")
    if entry.is_sparse:
        raise ImageError(f"{entry.path!r} in the image is in tar's sparse form", reason="UnsafeImage")
    if len(entry.parts) == 1:
        hint = f"the disk belongs into a directory of that name: /{DISK_DIRECTORY}/"
        raise ImageError(f"{DISK_DIRECTORY!r} in the image is a file", reason="NoDiskInImage", hint=hint)
    if entry.header.size_bytes == 0:
        raise ImageError(f"{entry.path!r} in the image is empty", reason="NoDiskInImage")
    if entry.header.size_bytes > LARGEST_DISK_BYTES:
        raise ImageError(f"{entry.path!r} in the image has {format_size(entry.header.size_bytes)}", reason="UnsafeImage")


def _require_disk_image(config: ImageConfig) -> None:
    for label in _BOOTABLE_LABELS:
        if label in config.labels:
            raise ImageError(
                f"the image is a bootable container (label {label}), not a disk in a container",
                reason="NoDiskInImage",
                hint="make a disk of it with bootc's image builder first",
            )


def _layers(manifest: Manifest, config: ImageConfig) -> list[_Layer]:
    if len(manifest.layers) != len(config.diff_ids):
        counts = f"{len(manifest.layers)} layers and {len(config.diff_ids)} diff_ids"
        raise ImageError(f"manifest and configuration do not belong together: {counts}", reason="BadManifest")
    return [_Layer(descriptor=layer, diff_id=diff_id) for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True)]
