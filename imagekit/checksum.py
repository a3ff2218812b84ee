"""Checksums that a user gives for a file, proven while the bytes pass by.

These are for what a publisher prints beside a download; digests of OCI content have a type of their own.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from imagekit.base.errors import UsageError, VerificationError
from imagekit.base.readers import ByteStream

_HEX_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
_ALGORITHM_BY_DIGITS = {digits: algorithm for algorithm, digits in _HEX_DIGITS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checksum:
    """An algorithm and the value it must give, in lower-case hexadecimal."""

    algorithm: str
    hexdigest: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hexdigest}"


def parse_checksum(text: str) -> Checksum:
    """Return the checksum that ``text`` names: ``sha256:HEX``, or bare hexadecimal whose length tells the algorithm.

    Raises:
        UsageError: It is neither, or the algorithm is not md5, sha1, sha256 or sha512.
    """
    algorithm, colon, value = text.strip().rpartition(":")
    algorithm, value = algorithm.lower(), value.lower()
    if not re.fullmatch(r"[0-9a-f]+", value):
        raise UsageError(f"{text!r} is not a checksum", hint="write sha256:HEX, or the hexadecimal digits alone")
    if not colon:
        algorithm = _ALGORITHM_BY_DIGITS.get(len(value), "")
    digits = _HEX_DIGITS.get(algorithm)
    if digits is None:
        known = ", ".join(f"{name} ({length} digits)" for name, length in _HEX_DIGITS.items())
        raise UsageError(f"{text!r} is of no known checksum algorithm", hint=f"one of {known}")
    if len(value) != digits:
        raise UsageError(f"a {algorithm} checksum has {digits} hexadecimal digits, {text!r} has {len(value)}")
    return Checksum(algorithm=algorithm, hexdigest=value)


class ChecksumStream:
    """A stream that hashes what is read from it, and fails at its end when the hash is not the promised one.

    The bytes before the end are handed out unproven: whoever takes them publishes nothing until the end was read.
    """

    def __init__(self, stream: ByteStream, checksum: Checksum) -> None:
        self._stream = stream
        self._checksum = checksum
        # md5 and sha1 are what some publishers offer; they find broken downloads, not forgeries.
        self._hash = hashlib.new(checksum.algorithm, usedforsecurity=False)
        self._size_bytes = 0
        self._is_proven = False

    @property
    def is_proven(self) -> bool:
        """Whether the end was read and the checksum held."""
        return self._is_proven

    def read(self, size_bytes: int, /) -> bytes:
        """Return the next bytes, ``b""`` at the proven end.

        Raises:
            VerificationError: The stream ended and its checksum is another one.
        """
        data = self._stream.read(size_bytes)
        if data or size_bytes == 0:
            self._hash.update(data)
            self._size_bytes += len(data)
        elif not self._is_proven:
            self._prove()
        return data

    def _prove(self) -> None:
        found = self._hash.hexdigest()
        if not hmac.compare_digest(found, self._checksum.hexdigest):
            raise VerificationError(
                f"the {self._checksum.algorithm} of {self._size_bytes} bytes is {found}, not {self._checksum.hexdigest}",
                reason="ChecksumMismatch",
                hint="the file was changed or damaged on its way, or the checksum belongs to another file",
            )
        self._is_proven = True
