"""What every source offers to a plan and to the pipeline: the bytes of one disk image, in order or at any place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imagekit.base.readers import ByteStream, RandomReader

OnBytes = Callable[[int], None]


def _nothing_to_verify() -> None:
    """A source without a promise of its own about its bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSource:
    """A disk image, as it is stored: perhaps compressed, in whatever format.

    Attributes:
        name: What it is called in messages; never with a password in it.
        open_stream: Returns the bytes from the first on; called once at most.
        size_bytes: Length of the image as it is stored, when it is known.
        fetch_bytes: What reading all of it transfers, when that is known; the total of the progress.
        reader: The same bytes at any place; None where the source has only a stream.
        descriptor: An open file that is exactly these bytes; None where there is none on this machine.
        identity: Names exactly this content, so that another run may rely on it; empty when nothing does.
        announced_size_bytes: Virtual size as the publisher annotated it; not to be trusted, but good for an early no.
        verify: Reads what is left and checks the source's own promises. Nothing is published before it returned.
        manifest_digest: Digest of the image manifest, for images.
        payload_path: Where in the image the disk is.
    """

    name: str
    open_stream: Callable[[], ByteStream]
    size_bytes: int | None
    fetch_bytes: int | None
    reader: RandomReader | None = None
    descriptor: int | None = None
    identity: str = ""
    announced_size_bytes: int | None = None
    verify: Callable[[], None] = _nothing_to_verify
    manifest_digest: str = ""
    payload_path: str = ""
