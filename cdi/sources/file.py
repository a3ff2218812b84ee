"""A disk in a local file or block device, and one that comes through standard input."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cdi.sources.base import OnBytes, OpenedSource
from imagekit.base.errors import NotFoundError, VerificationError
from imagekit.base.files import open_regular
from imagekit.base.readers import CountedReader, CountedStream
from imagekit.formats.compressed import ReaderStream
from imagekit.stream import FileReader

_STANDARD_INPUT = 0


@contextlib.contextmanager
def open_file_source(path: Path, *, on_bytes: OnBytes) -> Iterator[OpenedSource]:
    """Open the image in the file or block device ``path``; a link is not followed.

    Raises:
        NotFoundError: There is none.
        UsageError: It is a link or something else that holds no image.
    """
    try:
        descriptor = open_regular(path)
    except NotFoundError as error:
        hint = "an image in a registry is written docker://registry/name:tag, a download https://…"
        raise NotFoundError(error.message, hint=hint) from error
    try:
        identity = _identity(descriptor)
        reader = CountedReader(FileReader(descriptor), on_bytes)
        yield OpenedSource(
            name=str(path),
            open_stream=lambda: ReaderStream(reader),
            size_bytes=reader.size_bytes,
            fetch_bytes=reader.size_bytes,
            reader=reader,
            descriptor=descriptor,
            identity=identity,
            verify=lambda: _require_unchanged(path, descriptor, identity),
        )
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def open_standard_input(*, on_bytes: OnBytes) -> Iterator[OpenedSource]:
    """Open the image that comes through standard input; its length is not known before its end."""
    stream = CountedStream(_DescriptorStream(_STANDARD_INPUT), on_bytes)
    yield OpenedSource(name="standard input", open_stream=lambda: stream, size_bytes=None, fetch_bytes=None)


class _DescriptorStream:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size_bytes: int, /) -> bytes:
        return os.read(self._descriptor, size_bytes)


def _require_unchanged(path: Path, descriptor: int, identity: str) -> None:
    if _identity(descriptor) != identity:
        raise VerificationError(
            f"{path} was written to while it was imported",
            reason="SourceChanged",
            hint="end what writes it, a running machine perhaps, and import it again",
        )


def _identity(descriptor: int) -> str:
    """A file that was written to since has another time; one that was replaced has another inode."""
    status = os.fstat(descriptor)
    return f"file:{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
