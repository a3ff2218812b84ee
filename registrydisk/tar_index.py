"""Tar archives that hold an image, read at any place without unpacking.

The headers are walked once, and what they name is read where it lies. Links, which old docker archives have instead of
equal layers, lead to other members of the archive and nowhere else.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

from imagekit.base.errors import ImageError, NotFoundError
from imagekit.base.files import open_regular
from imagekit.base.units import MIB
from imagekit.compression import detect_compression
from imagekit.image import Compression
from registrydisk.store import BlobReader
from registrydisk.tar_header import BLOCK_BYTES, EntryKind
from registrydisk.tar_stream import TarEntry, TarStream

_MOST_MEMBERS = 20_000
_MOST_LINKS = 4
_LARGEST_READ_BYTES = 4 * MIB
_LINKS = frozenset({EntryKind.HARD_LINK, EntryKind.SYMBOLIC_LINK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """Where a file's bytes are; for a link, ``link_target`` is the member that it means."""

    offset_bytes: int
    size_bytes: int
    link_target: str = ""


class TarIndex:
    """The files of an archive by name; closes ``descriptor`` with itself.

    Raises:
        ImageError: The archive is malformed, has a name twice, or is compressed.
    """

    def __init__(self, descriptor: int, *, where: str) -> None:
        self._descriptor = descriptor
        self._where = where
        try:
            self._members = _walk(descriptor, where)
        except BaseException:
            os.close(descriptor)
            raise

    def has(self, name: str) -> bool:
        """Return whether the archive has a member, or a link, of this name."""
        return posixpath.normpath(name) in self._members

    def find(self, name: str) -> Member:
        """Return the member ``name``, with links followed inside the archive.

        Raises:
            NotFoundError: There is none.
        """
        wanted = posixpath.normpath(name)
        for _ in range(_MOST_LINKS):
            member = self._members.get(wanted)
            if member is None:
                raise NotFoundError(f"{self._where} has no file {wanted[:200]!r}")
            if not member.link_target:
                return member
            wanted = member.link_target
        raise ImageError(f"{self._where} has a chain of links at {name[:200]!r}", reason="UnsafeImage")

    def open(self, name: str, *, offset_bytes: int = 0) -> BlobReader:
        member = self.find(name)
        return _MemberReader(self._descriptor, member, min(offset_bytes, member.size_bytes))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def open_tar_index(path: Path, *, where: str) -> TarIndex:
    """Return the index of the archive at ``path``; its last part may not be a link."""
    return TarIndex(open_regular(path), where=where)


class _MemberReader:
    """One member's bytes; several readers may share the descriptor."""

    def __init__(self, descriptor: int, member: Member, start_bytes: int) -> None:
        self._descriptor = descriptor
        self._next_bytes = member.offset_bytes + start_bytes
        self._end_bytes = member.offset_bytes + member.size_bytes

    def read(self, size_bytes: int, /) -> bytes:
        wanted = min(size_bytes, self._end_bytes - self._next_bytes, _LARGEST_READ_BYTES)
        chunk = os.pread(self._descriptor, wanted, self._next_bytes)
        self._next_bytes += len(chunk)
        return chunk

    def close(self) -> None:
        """The descriptor is the archive's."""


class _Cursor:
    """The archive as a stream that can pass over bytes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.position_bytes = 0

    def read(self, size_bytes: int, /) -> bytes:
        chunk = os.pread(self._descriptor, size_bytes, self.position_bytes)
        self.position_bytes += len(chunk)
        return chunk

    def skip(self, size_bytes: int) -> None:
        self.position_bytes += size_bytes


def _walk(descriptor: int, where: str) -> dict[str, Member]:
    _require_plain(descriptor, where)
    cursor = _Cursor(descriptor)
    members: dict[str, Member] = {}
    end_bytes = os.lseek(descriptor, 0, os.SEEK_END)
    for entry in TarStream(cursor, what=where, skip=cursor.skip).entries():
        if entry.header.kind is not EntryKind.FILE and entry.header.kind not in _LINKS:
            continue
        member = _member(entry, cursor.position_bytes, where)
        if entry.path in members or len(members) == _MOST_MEMBERS:
            why = f"{entry.path[:200]!r} twice" if entry.path in members else f"more than {_MOST_MEMBERS} files"
            raise ImageError(f"{where} has {why}", reason="UnsafeImage")
        if member.offset_bytes + member.size_bytes > end_bytes:
            raise ImageError(f"{where} ends within {entry.path[:200]!r}", reason="TruncatedStream", hint="copy the archive again")
        members[entry.path] = member
    return members


def _member(entry: TarEntry, position_bytes: int, where: str) -> Member:
    if entry.is_sparse:
        raise ImageError(f"{where} has the sparse file {entry.path[:200]!r}", reason="UnsafeImage")
    link_target = ""
    if entry.header.kind in _LINKS:
        is_relative = entry.header.kind is EntryKind.SYMBOLIC_LINK
        base = posixpath.dirname(entry.path) if is_relative else ""
        link_target = posixpath.normpath(posixpath.join(base, entry.header.link_name))
    return Member(offset_bytes=position_bytes, size_bytes=entry.header.size_bytes, link_target=link_target)


def _require_plain(descriptor: int, where: str) -> None:
    compression = detect_compression(os.pread(descriptor, BLOCK_BYTES, 0))
    if compression is not Compression.NONE:
        raise ImageError(
            f"{where} is compressed with {compression}", hint="decompress the archive first: it is read at many places"
        )
