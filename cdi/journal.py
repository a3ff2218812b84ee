"""What an import has written durably, so that the next run goes on from there instead of fetching it again.

A small file beside the target, JSON lines: the first says what is imported and how, each later one up to where in the
source everything was written *and synced*. A run goes on only when its own first line is the same, byte for byte; so
whatever changes the meaning of an offset (the source's entity tag, the decoder, the disk's size) discards the journal.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from dataclasses import asdict, dataclass

_VERSION = 1
_LARGEST_BYTES = 1 << 20
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalHeader:
    """What an offset in the journal means.

    Attributes:
        identity: What the source is: its URL or path with entity tag or inode, length and time.
        format: The decoder.
        disk_size_bytes: Size of the disk that is written.
        partial_inode: The file that holds what was written.
    """

    identity: str
    format: str
    disk_size_bytes: int
    partial_inode: int

    def to_line(self) -> bytes:
        """Return the journal's first line."""
        return json.dumps({"version": _VERSION, **asdict(self)}, sort_keys=True).encode() + b"\n"


class Journal:
    """The journal ``name`` in the directory that ``directory_descriptor`` is open on."""

    def __init__(self, directory_descriptor: int, name: str) -> None:
        self._directory = directory_descriptor
        self._name = name
        self._descriptor: int | None = None

    def read_done_bytes(self, header: JournalHeader) -> int:
        """Return up to where in the source an earlier run of the same import got; 0 when there was none."""
        try:
            descriptor = os.open(self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._directory)
        except OSError:
            return 0
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return 0
            first, _, rest = file.read(_LARGEST_BYTES).partition(b"\n")
        return _last_offset(rest) if first + b"\n" == header.to_line() else 0

    def start(self, header: JournalHeader, *, done_bytes: int) -> None:
        """Begin the journal afresh, at an offset that is known to be durable."""
        self.remove()
        self._descriptor = os.open(self._name, _FLAGS | os.O_EXCL, 0o600, dir_fd=self._directory)
        os.write(self._descriptor, header.to_line())
        self.record(done_bytes)
        os.fsync(self._directory)

    def record(self, done_bytes: int) -> None:
        """Note that everything before ``done_bytes`` of the source is durable in the target, which the caller made sure of."""
        assert self._descriptor is not None, "the journal was not started"
        os.write(self._descriptor, json.dumps({"done": done_bytes}).encode() + b"\n")
        os.fdatasync(self._descriptor)

    def remove(self) -> None:
        """Forget everything; safe when there is nothing."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._directory)

    def close(self) -> None:
        """Give back the file, which stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _last_offset(lines: bytes) -> int:
    """Return the last whole entry; a torn last line, of a machine that lost power, does not count."""
    done_bytes = 0
    for line in lines.split(b"\n")[:-1]:
        try:
            entry = json.loads(line)
            offset = entry["done"]
        except (ValueError, TypeError, KeyError):
            break
        if type(offset) is not int or offset < done_bytes:
            break
        done_bytes = offset
    return done_bytes
