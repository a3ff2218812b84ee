"""Compression around a whole file: recognised by its first bytes and undone as a stream, in bounded memory.

One ``read`` never makes more than was asked for, whatever the ratio, so a bomb costs time and not memory; how much
output is too much is the reader's own decision. Streams of several members (gzip, xz, bzip2) and frames (zstd) are read
to their end; bytes after the last one, and an end inside one, are errors. Zero padding after gzip and xz is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, Protocol, cast

from imagekit.base.errors import ImageError, VerificationError
from imagekit.base.readers import ByteStream
from imagekit.base.units import MIB
from imagekit.image import Compression

_CHUNK_BYTES = 64 * 1024
_CODEC_MEMORY_BYTES = 128 * MIB  # what zstd and xz may take for their window; both tools' own strongest presets need less

_GZIP_MAGIC = b"\x1f\x8b\x08"
_XZ_MAGIC = b"\xfd7zXZ\x00"
_BZIP2_MAGIC = b"BZh"
_BZIP2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")  # pi: a block; its square root: the end
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a byte 0x50-0x5f


class PeekableStream:
    """A stream whose next bytes can be looked at before they are read."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._ahead = b""

    def peek(self, size_bytes: int) -> bytes:
        """Return the next ``size_bytes`` without consuming them; fewer only at the end."""
        parts, have_bytes = [self._ahead], len(self._ahead)
        while have_bytes < size_bytes and (chunk := self._stream.read(size_bytes - have_bytes)):
            parts.append(chunk)
            have_bytes += len(chunk)
        self._ahead = b"".join(parts)
        return self._ahead[:size_bytes]

    def read(self, size_bytes: int, /) -> bytes:
        """Return 1 to ``size_bytes`` bytes, or ``b""`` at the end."""
        if not self._ahead:
            return self._stream.read(size_bytes)
        taken, self._ahead = self._ahead[:size_bytes], self._ahead[size_bytes:]
        return taken


def detect_compression(head: bytes) -> Compression:
    """Return the compression that a file with these first (at least ten) bytes has."""
    if head.startswith(_GZIP_MAGIC):
        return Compression.GZIP
    if head.startswith(_XZ_MAGIC):
        return Compression.XZ
    if head.startswith(_BZIP2_MAGIC) and head[3:4] in b"123456789" and head[4:10] in _BZIP2_BLOCKS:
        return Compression.BZIP2
    if head.startswith(_ZSTD_MAGIC) or (head[1:4] == _ZSTD_SKIPPABLE and head[0] & 0xF0 == 0x50):
        return Compression.ZSTD
    return Compression.NONE


def open_decompressed(stream: ByteStream, compression: Compression) -> ByteStream:
    """Return the stream inside ``stream``; it is read as it is asked for.

    Reading raises VerificationError with the reason ``TruncatedStream`` (it ends early) or ``CorruptStream``
    (checksums included), and ImageError with ``TrailingGarbage`` when something else follows the compressed stream.
    """
    match compression:
        case Compression.NONE:
            return stream
        case Compression.GZIP:
            return _MemberStream(stream, _gzip_codec())
        case Compression.XZ:
            return _MemberStream(stream, _xz_codec())
        case Compression.BZIP2:
            return _MemberStream(stream, _bzip2_codec())
        case Compression.ZSTD:
            return _ZstdStream(stream)


class _Member(Protocol):
    """What igzip's, lzma's and bz2's decompressor objects have in common; each ends with one member."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Codec:
    name: str
    magic: bytes
    open_member: Callable[[], _Member]
    errors: tuple[type[Exception], ...]
    is_zero_padded: bool


# The codecs are imported when one is needed: together they would cost every `--help` 30 ms.
def _gzip_codec() -> _Codec:
    from isal import igzip_lib

    def open_member() -> _Member:
        member: _Member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        return member

    igzip_error = cast(type[Exception], igzip_lib.IsalError)  # its stub calls the class an instance
    return _Codec(name="gzip", magic=_GZIP_MAGIC, open_member=open_member, errors=(igzip_error,), is_zero_padded=True)


def _xz_codec() -> _Codec:
    import lzma

    def open_member() -> _Member:
        return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_CODEC_MEMORY_BYTES)

    return _Codec(name="xz", magic=_XZ_MAGIC, open_member=open_member, errors=(lzma.LZMAError,), is_zero_padded=True)


def _bzip2_codec() -> _Codec:
    import bz2

    return _Codec(
        name="bzip2", magic=_BZIP2_MAGIC, open_member=bz2.BZ2Decompressor, errors=(OSError, ValueError), is_zero_padded=False
    )


class _MemberStream:
    """Members of one codec, one after another."""

    def __init__(self, stream: ByteStream, codec: _Codec) -> None:
        self._stream = stream
        self._codec = codec
        self._member = codec.open_member()
        self._input = b""
        self._is_done = False

    def read(self, size_bytes: int, /) -> bytes:
        if size_bytes <= 0:
            return b""
        while not self._is_done:
            if self._member.eof:
                self._open_next_member()
                continue
            fed = self._feed()
            try:
                content = self._member.decompress(fed, size_bytes)
            except self._codec.errors as error:
                raise _corrupt(self._codec.name, error) from error
            if content:
                return content
        return b""

    def _feed(self) -> bytes:
        if not self._member.needs_input:
            return b""
        fed, self._input = self._input or self._stream.read(_CHUNK_BYTES), b""
        if not fed:
            raise _truncated(self._codec.name)
        return fed

    def _open_next_member(self) -> None:
        rest = self._without_padding(self._member.unused_data)
        while len(rest) < len(self._codec.magic):
            chunk = self._stream.read(_CHUNK_BYTES)
            if not chunk:
                break
            rest = self._without_padding(rest + chunk)
        if not rest:
            self._is_done = True
        elif rest.startswith(self._codec.magic):
            self._member, self._input = self._codec.open_member(), rest
        else:
            raise _trailing_garbage(self._codec.name)

    def _without_padding(self, rest: bytes) -> bytes:
        return rest.lstrip(b"\0") if self._codec.is_zero_padded else rest


class _ZstdStream:
    """Frames of zstd, one after another."""

    def __init__(self, stream: ByteStream) -> None:
        import zstandard

        self._error: type[Exception] = zstandard.ZstdError
        frames = cast(BinaryIO, _ZstdFrames(stream))  # of a file, only read() is used
        decompressor = zstandard.ZstdDecompressor(max_window_size=_CODEC_MEMORY_BYTES)
        self._reader = decompressor.stream_reader(frames, read_size=_CHUNK_BYTES, read_across_frames=True)

    def read(self, size_bytes: int, /) -> bytes:
        if size_bytes <= 0:
            return b""
        try:
            return self._reader.read(size_bytes)
        except self._error as error:
            raise _corrupt("zstd", error) from error


class _FrameStep(NamedTuple):
    """What of a frame comes next: bytes that do not matter, then bytes that say how it goes on."""

    skipped_bytes: int
    wanted_bytes: int
    is_boundary: bool = False


class _ZstdFrames:
    """Bytes of zstd passed on as they are; an end inside a frame is an error, which zstandard's reader does not tell."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._layout = _zstd_layout()
        self._step = next(self._layout)
        self._left_bytes = 0
        self._pending = b""
        self._is_started = False

    def read(self, size_bytes: int = -1, /) -> bytes:
        chunk = self._stream.read(size_bytes)
        if chunk:
            self._follow(chunk)
        elif not (self._is_started and self._step.is_boundary and not self._pending and not self._left_bytes):
            raise _truncated("zstd")
        return chunk

    def _follow(self, chunk: bytes) -> None:
        self._is_started = True
        position = 0
        while position < len(chunk):
            skipped = min(self._left_bytes, len(chunk) - position)
            self._left_bytes -= skipped
            position += skipped
            wanted = self._step.wanted_bytes - len(self._pending)
            taken = chunk[position : position + wanted]
            position += len(taken)
            self._pending += taken
            if len(self._pending) == self._step.wanted_bytes and not self._left_bytes:
                self._step, self._pending = self._layout.send(self._pending), b""
                self._left_bytes = self._step.skipped_bytes


def _zstd_layout() -> Generator[_FrameStep, bytes, None]:
    """Walk frames as RFC 8878 section 3.1 lays them out, block by block."""
    skipped_bytes = 0
    while True:
        magic = yield _FrameStep(skipped_bytes, 4, is_boundary=True)
        if magic[1:] == _ZSTD_SKIPPABLE and magic[0] & 0xF0 == 0x50:
            skipped_bytes = int.from_bytes((yield _FrameStep(0, 4)), "little")
            continue
        if magic != _ZSTD_MAGIC:
            raise _trailing_garbage("zstd")
        descriptor = (yield _FrameStep(0, 1))[0]
        skipped_bytes = _zstd_header_bytes(descriptor)
        is_last = False
        while not is_last:
            block = int.from_bytes((yield _FrameStep(skipped_bytes, 3)), "little")
            is_last = bool(block & 1)
            is_run = block >> 1 & 3 == 1
            skipped_bytes = 1 if is_run else block >> 3
        skipped_bytes += 4 if descriptor & 0x04 else 0


def _zstd_header_bytes(descriptor: int) -> int:
    is_single_segment = bool(descriptor & 0x20)
    content_size_bytes = (1 if is_single_segment else 0, 2, 4, 8)[descriptor >> 6]
    dictionary_bytes = (0, 1, 2, 4)[descriptor & 3]
    return (0 if is_single_segment else 1) + dictionary_bytes + content_size_bytes


def _truncated(name: str) -> VerificationError:
    return VerificationError(
        f"the {name} stream ends early", reason="TruncatedStream", hint="the file is incomplete: fetch it again"
    )


def _trailing_garbage(name: str) -> ImageError:
    return ImageError(
        f"something that is not {name} follows the {name} stream",
        reason="TrailingGarbage",
        hint="two programs would read two different things: fetch the file again, or decompress it where it was made",
    )


def _corrupt(name: str, error: Exception) -> VerificationError:
    return VerificationError(
        f"the {name} stream is damaged: {error}",
        reason="CorruptStream",
        hint="the file was changed or cut on its way: fetch it again",
    )
