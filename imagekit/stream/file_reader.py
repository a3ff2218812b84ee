"""A local file or device, read at any place."""

from __future__ import annotations

import os

from imagekit.base.files import translate_os_error


class FileReader:
    """Reads a descriptor, which stays the caller's and open; a ``RandomReader``."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        # The end's offset is the size of a block device too, whose st_size is 0.
        self._size_bytes = os.lseek(descriptor, 0, os.SEEK_END)

    @property
    def size_bytes(self) -> int:
        """Length of the whole."""
        return self._size_bytes

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return exactly ``size_bytes`` from ``offset_bytes``, or fewer only at the end.

        Raises:
            ImagekitError: The file cannot be read.
        """
        try:
            content = os.pread(self._descriptor, size_bytes, offset_bytes)
            while len(content) < size_bytes and (more := self._read_more(offset_bytes, content, size_bytes)):
                content += more
        except OSError as error:
            raise translate_os_error(error, doing="read the image") from error
        return content

    def _read_more(self, offset_bytes: int, content: bytes, size_bytes: int) -> bytes:
        # One call returns at most 2 GiB, and less near the end of some file systems.
        return os.pread(self._descriptor, size_bytes - len(content), offset_bytes + len(content))
