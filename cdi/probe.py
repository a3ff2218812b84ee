"""The look at a source's first bytes, from which everything else is decided; nothing has been written by then."""

from __future__ import annotations

from cdi.plan import SECTOR_BYTES, SourceObservation, rounded_up
from cdi.sources.base import OpenedSource
from imagekit.base.errors import ImageError
from imagekit.base.readers import ByteStream
from imagekit.base.units import MIB
from imagekit.checksum import Checksum, ChecksumStream
from imagekit.compression import PeekableStream, detect_compression, open_decompressed
from imagekit.formats.detect import HEAD_BYTES, TAIL_BYTES, detect_format
from imagekit.formats.qcow2 import header_findings, parse_header
from imagekit.image import Compression, DiskFormat, ImageInfo
from imagekit.inspection import inspect_reader, require_safe

_NOT_DISKS = (
    (0, b"<!doctype html", "a web page"),
    (0, b"<html", "a web page"),
    (0, b"pk\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (257, b"ustar", "a tar archive"),
)
"""Where and how begins, in lower case, what is often mistaken for a raw disk: its bytes would boot nowhere."""


class ProbedSource:
    """A source whose head was looked at; its image is read through here, once.

    Attributes:
        opened: The source.
        observation: What was seen.
    """

    def __init__(self, opened: OpenedSource, *, observation: SourceObservation, stored: _StoredStream, image: ByteStream) -> None:
        self.opened = opened
        self.observation = observation
        self._stored = stored
        self._tail = _TailWatch(image)

    @property
    def image(self) -> ByteStream:
        """The image in order, without its compression."""
        return self._tail

    @property
    def image_size_bytes(self) -> int | None:
        """Length of ``image``, when it is known before its end."""
        return self.opened.size_bytes if self.observation.compression is Compression.NONE else None

    @property
    def direct_descriptor(self) -> int | None:
        """A file that is exactly the image, so that no copy of it is needed; None where there is none."""
        if self.observation.compression is not Compression.NONE or self._stored.has_checksum:
            return None
        return self.opened.descriptor

    def verify(self) -> None:
        """Read what is left and check everything that was promised of the source.

        Raises:
            VerificationError: A checksum or digest does not hold, or a stream is cut.
            ImageError: The last bytes say that the image is of another format than the first ones did.
        """
        for stream in (self.image, self._stored):
            while stream.read(MIB):
                pass
        self.opened.verify()
        if self.observation.format is DiskFormat.RAW:
            self._require_raw_tail()

    def _require_raw_tail(self) -> None:
        if detect_format(b"", tail=self._tail.last_bytes) is not DiskFormat.RAW:
            raise ImageError(
                f"{self.opened.name} is a fixed VHD, which tells itself only by its last bytes",
                hint="download it and import the file, or convert it to qcow2 where it was made",
            )


def probe(opened: OpenedSource, *, checksum: Checksum | None) -> ProbedSource:
    """Look at the head of a source, and at its end where that is possible.

    Args:
        checksum: What the stored bytes must hash to; checked when all of them were read.

    Raises:
        ImageError: It is unsafe, of no supported format, or no disk at all.
    """
    stored = _StoredStream(opened, checksum)
    peekable = PeekableStream(stored)
    stored_head = peekable.peek(HEAD_BYTES) if opened.reader is None else opened.reader.read_at(0, HEAD_BYTES)
    compression = detect_compression(stored_head)
    image = PeekableStream(open_decompressed(peekable, compression))
    head = stored_head if compression is Compression.NONE else image.peek(HEAD_BYTES)
    if detect_compression(head) is not Compression.NONE:
        raise ImageError(f"{opened.name} is compressed twice", hint="undo one of the compressions first")
    disk_format = detect_format(head, tail=_tail(opened, compression))
    if disk_format is DiskFormat.RAW:
        _require_disk(opened, head)
    observation = SourceObservation(
        format=disk_format,
        compression=compression,
        size_bytes=opened.size_bytes,
        virtual_size_bytes=_virtual_size_bytes(opened, disk_format, compression, head=head),
        announced_size_bytes=opened.announced_size_bytes,
        is_seekable=opened.reader is not None,
        is_local=opened.descriptor is not None,
        identity=opened.identity,
    )
    return ProbedSource(opened, observation=observation, stored=stored, image=image)


def _tail(opened: OpenedSource, compression: Compression) -> bytes:
    if opened.reader is None or compression is not Compression.NONE:
        return b""
    return opened.reader.read_at(max(opened.reader.size_bytes - TAIL_BYTES, 0), TAIL_BYTES)


def _virtual_size_bytes(opened: OpenedSource, disk_format: DiskFormat, compression: Compression, *, head: bytes) -> int | None:
    """Return the size of the disk when the head, or a reader, tells it; what is unsafe is refused on the way."""
    stored_bytes = opened.size_bytes if compression is Compression.NONE else None
    match disk_format:
        case DiskFormat.QCOW2:
            return _qcow2_size_bytes(opened, head=head, stored_bytes=stored_bytes)
        case DiskFormat.RAW | DiskFormat.ISO:
            return None if stored_bytes is None else rounded_up(stored_bytes)
        case _ if opened.reader is not None and compression is Compression.NONE:
            info = inspect_reader(opened.reader)
            require_safe(info, what=opened.name)
            return info.virtual_size_bytes
        case _:
            return None


def _qcow2_size_bytes(opened: OpenedSource, *, head: bytes, stored_bytes: int | None) -> int:
    header = parse_header(head)
    info = ImageInfo(
        format=DiskFormat.QCOW2,
        file_size_bytes=stored_bytes or 0,
        virtual_size_bytes=header.virtual_size_bytes,
        findings=header_findings(header, file_size_bytes=stored_bytes),
    )
    require_safe(info, what=opened.name)
    return info.virtual_size_bytes


def _require_disk(opened: OpenedSource, head: bytes) -> None:
    if len(head) < SECTOR_BYTES:
        raise ImageError(f"{opened.name} is no disk: it has only {len(head)} bytes", hint="is this the file that was meant?")
    start = head.lstrip()[:16].lower()
    for offset, magic, words in _NOT_DISKS:
        if start.startswith(magic) if offset == 0 else head.startswith(magic, offset):
            raise ImageError(f"{opened.name} is {words}, not a disk", hint="unpack it, or give the address of the disk itself")


class _StoredStream:
    """The source's bytes in order, hashed when a checksum was given; opened when they are first asked for."""

    def __init__(self, opened: OpenedSource, checksum: Checksum | None) -> None:
        self._opened = opened
        self._checksum = checksum
        self._stream: ByteStream | None = None

    @property
    def has_checksum(self) -> bool:
        """Whether all bytes must be read in order."""
        return self._checksum is not None

    def read(self, size_bytes: int, /) -> bytes:
        if self._stream is None:
            stream = self._opened.open_stream()
            self._stream = stream if self._checksum is None else ChecksumStream(stream, self._checksum)
        return self._stream.read(size_bytes)


class _TailWatch:
    """A stream that remembers its last bytes."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.last_bytes = b""

    def read(self, size_bytes: int, /) -> bytes:
        chunk = self._stream.read(size_bytes)
        if len(chunk) >= TAIL_BYTES:
            self.last_bytes = chunk[-TAIL_BYTES:]
        elif chunk:
            self.last_bytes = (self.last_bytes + chunk)[-TAIL_BYTES:]
        return chunk
