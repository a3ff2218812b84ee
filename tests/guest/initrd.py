"""The initial RAM disk: a cpio archive (format "newc", kernel Documentation/driver-api/early-userspace/buffer-format)."""

from __future__ import annotations

import gzip
import stat
from dataclasses import dataclass

_FIELDS = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file, directory, link or device of the archive; everything belongs to root and has no time."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(name: str) -> Entry:
    """Return a directory."""
    return Entry(name=name, mode=stat.S_IFDIR | 0o755)


def program(name: str, content: bytes) -> Entry:
    """Return an executable file."""
    return Entry(name=name, mode=stat.S_IFREG | 0o755, content=content)


def make_initrd(entries: list[Entry]) -> bytes:
    """Return the compressed archive of ``entries``; equal entries give equal bytes."""
    trailer = Entry(name="TRAILER!!!", mode=0)
    archive = b"".join(_record(number, entry) for number, entry in enumerate([*entries, trailer], start=1))
    return gzip.compress(archive, compresslevel=6, mtime=0)


def _record(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = [number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.device, len(name), 0]
    assert len(fields) == _FIELDS
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)
