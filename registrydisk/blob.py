"""Small blobs, read whole and verified."""

from __future__ import annotations

from contextlib import closing

from imagekit.base.errors import ImageError
from imagekit.base.units import format_size
from registrydisk.digest import VerifyingStream
from registrydisk.manifest import Descriptor
from registrydisk.store import ImageSource


def read_blob(source: ImageSource, descriptor: Descriptor, *, most_bytes: int) -> bytes:
    """Return the whole blob, verified against its digest and size.

    Raises:
        ImageError: The descriptor promises more than ``most_bytes``, with reason TooLarge.
        VerificationError: The bytes are not what the descriptor says.
    """
    what = f"blob {descriptor.digest}"
    if descriptor.size_bytes > most_bytes:
        raise ImageError(f"{what} has {format_size(descriptor.size_bytes)}, more than {format_size(most_bytes)}", reason="TooLarge")
    content = bytearray()
    with closing(source.open_blob(descriptor)) as reader:
        stream = VerifyingStream(reader, digest=descriptor.digest, size_bytes=descriptor.size_bytes, what=what)
        while chunk := stream.read(descriptor.size_bytes + 1 - len(content)):
            content += chunk
    return bytes(content)
