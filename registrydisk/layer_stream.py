"""Reading one layer: fetched and hashed in one thread, inflated in a second, and handed on by the caller's own.

Two digests guard a layer. The manifest's covers the bytes that travel, the configuration's ``diff_id`` the tar archive
in them (OCI image-spec, config.md). Both are checked at the end, by ``drain``: nothing read before it is trustworthy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from imagekit.base.errors import ImageError
from imagekit.base.readers import CountedStream
from imagekit.base.units import GIB, format_size
from imagekit.compression import PeekableStream, detect_compression, open_decompressed
from imagekit.image import Compression
from imagekit.stream.base import ByteStream
from registrydisk.digest import Digest, VerifyingStream
from registrydisk.manifest import DOCKER_LAYER, OCI_LAYER, Descriptor
from registrydisk.read_ahead import ReadAhead
from registrydisk.store import ImageSource

_LAYER_COMPRESSIONS = frozenset({Compression.NONE, Compression.GZIP, Compression.ZSTD})
_HEAD_BYTES = 512
_DRAIN_BYTES = 1 << 20
_FREE_BYTES = GIB
_LARGEST_RATIO = 2000
"""Deflate reaches 1030:1; only zstd can do more, and nothing but a disk, which has its own bound, has a reason to."""


class LayerStream:
    """The tar archive of one layer, as a ByteStream."""

    def __init__(self, stream: ByteStream, *, fetched: ByteStream, blob_bytes: int, what: str) -> None:
        self._stream = stream
        self._fetched = fetched
        self._what = what
        self._seen_bytes = 0
        self._most_bytes = _FREE_BYTES + _LARGEST_RATIO * blob_bytes

    def read(self, size_bytes: int, /) -> bytes:
        """Return the next bytes.

        Raises:
            ImageError: The layer inflates beyond any reason, with reason TooLarge.
        """
        chunk = self._stream.read(size_bytes)
        self._seen_bytes += len(chunk)
        if self._seen_bytes > self._most_bytes:
            raise ImageError(f"{self._what} inflates to more than {format_size(self._most_bytes)}", reason="TooLarge")
        return chunk

    def allow(self, size_bytes: int) -> None:
        """Allow for a disk of this size, whose reader bounds it, on top of what any layer may inflate to."""
        self._most_bytes += size_bytes

    def drain(self) -> None:
        """Read what is left, so that both digests are checked.

        Raises:
            VerificationError: One of them does not hold.
        """
        while self.read(_DRAIN_BYTES):
            pass
        # The archive ends where its decoder is satisfied; the blob is verified only at its own end.
        while self._fetched.read(_DRAIN_BYTES):
            pass


@contextlib.contextmanager
def open_layer(
    source: ImageSource,
    descriptor: Descriptor,
    *,
    diff_id: Digest,
    on_bytes: Callable[[int], None] | None = None,
) -> Iterator[LayerStream]:
    """Open a layer as its tar archive.

    Args:
        diff_id: The digest of the archive, from the image's configuration.
        on_bytes: Told of each piece of the blob that was fetched, from another thread.

    Raises:
        ImageError: It is no tar layer, or compressed in a way that layers never are.
    """
    what = f"layer {descriptor.digest}"
    _require_layer_type(descriptor)
    with contextlib.ExitStack() as stack:
        reader = source.open_blob(descriptor)
        stack.callback(reader.close)
        counted: ByteStream = CountedStream(reader, on_bytes) if on_bytes is not None else reader
        blob = VerifyingStream(counted, digest=descriptor.digest, size_bytes=descriptor.size_bytes, what=what)
        fetched = stack.enter_context(contextlib.closing(ReadAhead(blob, name="fetch layer")))
        compression, stream = _inflated(fetched, what)
        if compression is not Compression.NONE:
            inflated = stack.enter_context(contextlib.closing(ReadAhead(stream, name="inflate layer")))
            stack.callback(inflated.stop)
            stream = inflated
        stack.callback(fetched.stop)
        archive = VerifyingStream(stream, digest=diff_id, size_bytes=None, what=f"the archive in {what}")
        yield LayerStream(archive, fetched=fetched, blob_bytes=descriptor.size_bytes, what=what)


def _inflated(fetched: ByteStream, what: str) -> tuple[Compression, ByteStream]:
    """The magic decides, not the media type, as it does for docker and containerd."""
    peekable = PeekableStream(fetched)
    compression = detect_compression(peekable.peek(_HEAD_BYTES))
    if compression not in _LAYER_COMPRESSIONS:
        raise ImageError(f"{what} is compressed with {compression}, which no image layer may be", hint="use gzip or zstd")
    return compression, open_decompressed(peekable, compression)


def _require_layer_type(descriptor: Descriptor) -> None:
    media_type = descriptor.media_type
    if "foreign" in media_type or "nondistributable" in media_type:
        raise ImageError(f"layer {descriptor.digest} is a foreign layer, which the registry does not hold")
    if not media_type.startswith((OCI_LAYER, DOCKER_LAYER)):
        hint = "this may be an artifact and not an image that can run"
        raise ImageError(f"{media_type!r} is not the media type of a layer", reason="BadManifest", hint=hint)
