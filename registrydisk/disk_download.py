"""The disk behind an http(s) URL: streamed where the server lets us look into it first, downloaded where it does not."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from imagekit.base.errors import VerificationError
from imagekit.base.files import require_free_bytes
from imagekit.base.progress import Progress
from imagekit.base.units import MIB
from imagekit.formats.detect import HEAD_BYTES
from imagekit.image import Compression
from imagekit.inspection import inspect_reader, require_safe
from registrydisk.access import RegistryAccess
from registrydisk.disk_blocks import stream_blocks
from registrydisk.disk_source import DiskOptions, DiskSource, must_convert, name_in_image, open_local_disk
from registrydisk.http_file import HttpFile, open_http

_PIECE_BYTES = MIB


def open_remote_disk(url: str, *, options: DiskOptions, progress: Progress, stack: contextlib.ExitStack) -> DiskSource:
    """Open the disk at ``url``; what it needs ends with ``stack``.

    Raises:
        ImageError: It is not safe, or of no known format.
        NetworkError: The server cannot be reached.
    """
    file_name = PurePosixPath(unquote(urlsplit(url).path)).name
    file = stack.enter_context(open_http(url, access=_web_access(options.access), on_note=progress.note))
    if file.supports_range and file.known_size_bytes is not None:
        info = inspect_reader(file)
        require_safe(info, what=file.what)
        if info.compression is Compression.NONE and not must_convert(info, options):
            head = file.read_at(0, HEAD_BYTES)
            return DiskSource(
                name=name_in_image(file_name, info.format),
                info=info,
                size_bytes=file.size_bytes,
                blocks=lambda: _same_disk(file, head),
                samples=lambda: iter(()),
            )
    downloaded = _download(file, options=options, progress=progress, stack=stack)
    return open_local_disk(downloaded, options=options, progress=progress, stack=stack, file_name=file_name)


def _web_access(access: RegistryAccess) -> RegistryAccess:
    """What was said of the registry is not for the web server: no credential, and no relaxed trust."""
    return replace(access, credential=None, is_insecure=False, is_plain_http=False, certificate_directory=None, token_hosts=())


def _same_disk(file: HttpFile, head: bytes) -> Iterator[bytes]:
    """Yield the disk, but never another one than was inspected, whatever the server sends this time."""
    with contextlib.closing(file.open()) as stream:
        for number, block in enumerate(stream_blocks(stream)):
            if number == 0 and block[: len(head)] != head:
                raise VerificationError(f"{file.what} changed while it was read", reason="SourceChanged", temporary=True)
            yield block


def _download(file: HttpFile, *, options: DiskOptions, progress: Progress, stack: contextlib.ExitStack) -> Path:
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="registrydisk-", dir=options.scratch)))
    progress.note(f"downloading {file.what} to a temporary file under {options.scratch}")
    if file.known_size_bytes is not None:
        require_free_bytes(scratch, file.known_size_bytes, purpose="download the disk")
    target = scratch / "download"
    with (
        progress.phase("download", file.known_size_bytes) as phase,
        contextlib.closing(file.open()) as stream,
        target.open("xb") as written,
    ):
        while piece := stream.read(_PIECE_BYTES):
            written.write(piece)
            phase.advance(len(piece))
    return target
