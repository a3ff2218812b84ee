"""Digests of content, and streams that compute or check them as they are read (OCI image-spec, descriptor.md)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from imagekit.base.errors import ImageError, VerificationError
from imagekit.stream.base import ByteStream

_PATTERN = re.compile(r"(?P<algorithm>sha256|sha512):(?P<encoded>[0-9a-f]+)")
_HEX_LENGTH = {"sha256": 64, "sha512": 128}


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """``algorithm:hex``; only sha256 and sha512 exist, so that one is safe as a file name after ``parse``."""

    algorithm: str
    encoded: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Return the digest that ``text`` writes.

        Raises:
            ImageError: It is not one, with reason BadManifest.
        """
        match = _PATTERN.fullmatch(text)
        if match is None or len(match["encoded"]) != _HEX_LENGTH[match["algorithm"]]:
            raise ImageError(f"{text[:150]!r} is not a digest", reason="BadManifest", hint="a digest is sha256: and 64 hex digits")
        return cls(match["algorithm"], match["encoded"])

    @classmethod
    def of(cls, content: bytes, *, algorithm: str = "sha256") -> Digest:
        """Return the digest of ``content``."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


class VerifyingStream:
    """Reads a stream through, and fails at its end unless size and digest are what was promised.

    The consumer must read to the end (``b""``) before it trusts a byte; ``drain`` does that.
    """

    def __init__(self, stream: ByteStream, *, digest: Digest, size_bytes: int | None, what: str) -> None:
        self._stream = stream
        self._digest = digest
        self._size_bytes = size_bytes
        self._what = what
        self._hash = hashlib.new(digest.algorithm)
        self._seen_bytes = 0
        self._is_verified = False

    @property
    def is_verified(self) -> bool:
        """Whether the end was reached and everything held."""
        return self._is_verified

    def read(self, size_bytes: int, /) -> bytes:
        """Return the next bytes.

        Raises:
            VerificationError: The stream ended early, is too long, or is not what the digest says.
        """
        chunk = self._stream.read(size_bytes)
        self._hash.update(chunk)
        self._seen_bytes += len(chunk)
        if self._size_bytes is not None and self._seen_bytes > self._size_bytes:
            raise VerificationError(f"{self._what} is longer than the {self._size_bytes} bytes promised", reason="SizeMismatch")
        if not chunk:
            self._check()
        return chunk

    def drain(self) -> None:
        """Read what is left, so that everything is verified."""
        while self.read(1 << 20):
            pass

    def _check(self) -> None:
        if self._size_bytes is not None and self._seen_bytes < self._size_bytes:
            raise VerificationError(
                f"{self._what} ended after {self._seen_bytes} of {self._size_bytes} bytes", reason="TruncatedStream", temporary=True
            )
        actual = Digest(self._digest.algorithm, self._hash.hexdigest())
        if actual != self._digest:
            raise VerificationError(
                f"{self._what} is not what its digest says: expected {self._digest}, got {actual}",
                hint="the bytes were changed on the way or in the registry; pull again, then ask who publishes the image",
            )
        self._is_verified = True
