"""Tar archives whose members are written before their sizes are known: the header is put in place afterwards.

Equal members in equal order make equal bytes: no times, no owners.
"""

from __future__ import annotations

import os

from registrydisk.tar_header import BLOCK_BYTES, END_OF_ARCHIVE, LARGEST_USTAR_SIZE, EntryKind, TarHeader, format_header, padding

_SIZE_FIELD = slice(124, 136)
_CHECKSUM_FIELD = slice(148, 156)


class TarWriter:
    """A tar archive at the beginning of the file ``descriptor``, one member at a time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._start_bytes = 0
        self._end_bytes = 0
        self._is_in_member = False

    def begin(self) -> None:
        """Begin a member; its name and size come with ``end``."""
        assert not self._is_in_member, "an archive takes one member at a time"
        self._is_in_member = True
        self._start_bytes = self._end_bytes
        self._end_bytes += BLOCK_BYTES

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes to the member."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, self._end_bytes)
            self._end_bytes += written
            rest = rest[written:]

    def end(self, name: str) -> None:
        """Complete the member as ``name``, at most 100 ASCII characters."""
        size_bytes = self._end_bytes - self._start_bytes - BLOCK_BYTES
        self.write(padding(size_bytes))
        os.pwrite(self._descriptor, _header(name, size_bytes), self._start_bytes)
        self._is_in_member = False

    def drop(self) -> None:
        """Take the unfinished member back; nothing happens when there is none."""
        if self._is_in_member:
            self._end_bytes = self._start_bytes
            os.ftruncate(self._descriptor, self._end_bytes)
            self._is_in_member = False

    def add(self, name: str, content: bytes) -> None:
        """Add a whole member."""
        self.begin()
        self.write(content)
        self.end(name)

    def finish(self) -> None:
        """Mark the end of the archive."""
        self.write(END_OF_ARCHIVE)


def _header(name: str, size_bytes: int) -> bytes:
    """Return one block: a size beyond ustar's octal digits is written in GNU's base 256, since a pax header needs more room."""
    fitting_bytes = min(size_bytes, LARGEST_USTAR_SIZE)
    block = bytearray(format_header(TarHeader(name=name, kind=EntryKind.FILE, size_bytes=fitting_bytes)))
    assert len(block) == BLOCK_BYTES
    if size_bytes > LARGEST_USTAR_SIZE:
        block[_SIZE_FIELD] = b"\x80" + size_bytes.to_bytes(11, "big")
        block[_CHECKSUM_FIELD] = b" " * 8
        block[_CHECKSUM_FIELD] = b"%06o\x00 " % sum(block)
    return bytes(block)
