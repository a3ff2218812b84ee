"""The writers of a volume: what the target's own rules add to the decoders' seam.

Decoders leave ``finish`` to their caller: it makes the disk durable, and on a device visible, and is called when every
digest and checksum held.
"""

from __future__ import annotations

import os

from imagekit.base.errors import NoSpaceError
from imagekit.base.files import translate_os_error
from imagekit.stream import FileWriter
from imagekit.stream.sparse import nonzero_extents, write_all


class VolumeWriter:
    """Fills a target in one go; a ``GrowingWriter``.

    Args:
        least_size_bytes: The disk is at least this large.
        preallocate: Reserve all of it in the file system first.
    """

    def __init__(self, writer: FileWriter, *, descriptor: int, least_size_bytes: int, preallocate: bool) -> None:
        self._writer = writer
        self._descriptor = descriptor
        self._least_size_bytes = least_size_bytes
        self._preallocate = preallocate
        self.disk_size_bytes = 0

    @property
    def capacity_bytes(self) -> int | None:
        """Largest disk that fits."""
        return self._writer.capacity_bytes

    def begin(self, virtual_size_bytes: int) -> None:
        """Prepare the disk, at the size that was asked for when that is larger."""
        self.disk_size_bytes = max(virtual_size_bytes, self._least_size_bytes)
        self._writer.begin(self.disk_size_bytes)
        if self._preallocate:
            preallocate(self._descriptor, self.disk_size_bytes)

    def grow(self, virtual_size_bytes: int) -> None:
        """Make the disk at least this large."""
        self.disk_size_bytes = max(self.disk_size_bytes, virtual_size_bytes)
        self._writer.grow(self.disk_size_bytes)

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Take data for this place."""
        self._writer.write_at(offset_bytes, data)

    def finish(self) -> None:
        """Make the verified disk durable.

        Raises:
            ImagekitError: Some write failed.
        """
        self._writer.finish()


def preallocate(descriptor: int, size_bytes: int) -> None:
    """Reserve ``size_bytes`` for a file, as far as they are not.

    Raises:
        NoSpaceError: There is no space for it.
    """
    try:
        if size_bytes:
            os.posix_fallocate(descriptor, 0, size_bytes)
    except OSError as error:
        raise translate_os_error(error, doing="reserve the space for the disk") from error


class ResumableWriter:
    """Fills a regular file from the calling thread, without emptying it first; a ``DiskWriter``.

    What ``write_at`` returned from is in the kernel, so ``sync`` covers all of it: that is what a journal needs. Zeros
    are left out, because what is there already is from the same source: nothing, or the same zeros.
    """

    def __init__(self, descriptor: int, *, capacity_bytes: int | None, disk_size_bytes: int, preallocate: bool) -> None:
        self._descriptor = descriptor
        self._capacity_bytes = capacity_bytes
        self._preallocate = preallocate
        self.disk_size_bytes = disk_size_bytes

    @property
    def capacity_bytes(self) -> int | None:
        """Largest disk that fits."""
        return self._capacity_bytes

    def begin(self, virtual_size_bytes: int) -> None:
        """Give the file its size; the plan made sure that it fits."""
        if virtual_size_bytes > self.disk_size_bytes:
            raise NoSpaceError(f"the disk grew to {virtual_size_bytes} bytes while it was imported", reason="TooLarge")
        try:
            os.ftruncate(self._descriptor, self.disk_size_bytes)
        except OSError as error:
            raise translate_os_error(error, doing="prepare the disk") from error
        if self._preallocate:
            preallocate(self._descriptor, self.disk_size_bytes)

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write data to this place now."""
        view = memoryview(data)
        try:
            for start, end in nonzero_extents(view, offset_bytes):
                write_all(self._descriptor, view[start:end], offset_bytes + start)
        except OSError as error:
            raise translate_os_error(error, doing="write the disk") from error

    def sync(self) -> None:
        """Make everything that was written durable."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise translate_os_error(error, doing="write the disk") from error

    def finish(self) -> None:
        """Make the verified disk durable."""
        self.sync()
