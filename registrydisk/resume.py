"""A body that is read to its end although its connections break: it goes on by Range from the last good byte.

Answers to Range requests are believed only when they say what they are (RFC 9110 section 14): a server that ignores
Range, or answers another one, gets its body skipped to the place; one whose file changed in between is an error.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from imagekit.base.errors import ImagekitError, NetworkError, VerificationError
from imagekit.base.units import MIB, format_duration, format_size
from registrydisk.access import RegistryAccess
from registrydisk.http import HttpResponse

_CONTENT_RANGE = re.compile(r"bytes (?P<first>\d{1,19})-(?P<last>\d{1,19})/(?P<total>\d{1,19}|\*)")
_PROGRESS_BYTES = MIB

OpenAt = Callable[[int, str], HttpResponse]


def parse_content_range(text: str) -> tuple[int, int, int | None] | None:
    """Return first byte, last byte and total (None when unknown) of a Content-Range header; None when it is broken."""
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None or int(match["last"]) < int(match["first"]):
        return None
    total = None if match["total"] == "*" else int(match["total"])
    if total is not None and int(match["last"]) >= total:
        return None
    return int(match["first"]), int(match["last"]), total


class ResumingReader:
    """Reads one body; a ByteStream and a BlobReader.

    Args:
        open_at: Asks for the body from an offset on; its second argument is the validator for If-Range, or empty.
            An offset of 0 asks without Range.
        size_bytes: The whole body's length when it is known for sure; checked against what the server says.
        validator: What an earlier answer said of the body's version (``validator_of``), and this one must say, too.
        is_content_addressed: The caller checks a digest over everything, so that versions need no other proof.
        on_note: Told in one line when a connection broke and the reading goes on.
    """

    def __init__(
        self,
        open_at: OpenAt,
        *,
        what: str,
        access: RegistryAccess,
        offset_bytes: int = 0,
        size_bytes: int | None = None,
        validator: str = "",
        is_content_addressed: bool = False,
        on_note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._open_at = open_at
        self._what = what
        self._limits = access.limits
        self._clock = access.clock
        self._size_bytes = size_bytes
        self._validator = validator
        self._is_content_addressed = is_content_addressed
        self._on_note = on_note
        self._start_bytes = self._offset_bytes = offset_bytes
        self._checksum = zlib.crc32(b"")  # of what was delivered: a restarted body must begin with the same bytes
        self._fetched_bytes = 0
        self._failures = 0
        self._failed_at_bytes = offset_bytes
        self._response: HttpResponse | None = None
        self._response_end_bytes: int | None = None
        self._has_ranges = True  # until the server answers another range than the one asked for
        self._is_closed = False

    @property
    def fetched_bytes(self) -> int:
        """Bytes received over all connections, those that were skipped included."""
        return self._fetched_bytes

    def open(self) -> None:
        """Open the first connection now, so that a body that cannot be had is known before it is read.

        Raises:
            NotFoundError: There is none.
        """
        while self._response is None and not self._is_at_end():
            try:
                self._open()
            except NetworkError as error:
                self._wait_after(error)

    def read(self, size_bytes: int, /) -> bytes:
        """Return the next bytes, ``b""`` at the end.

        Raises:
            NetworkError: Connections kept breaking without progress.
            VerificationError: The body changed between two connections (SourceChanged) or is longer than promised.
        """
        while True:
            if self._is_at_end():
                return b""
            try:
                return self._read_once(size_bytes)
            except NetworkError as error:
                self._drop()
                self._wait_after(error)

    def close(self) -> None:
        """Give back the connection."""
        self._is_closed = True
        self._drop()

    def _read_once(self, size_bytes: int) -> bytes:
        if self._response is None:
            self._open()
        assert self._response is not None
        chunk = self._response.read(size_bytes)
        end_bytes = self._size_bytes if self._size_bytes is not None else self._response_end_bytes
        if not chunk and end_bytes is not None and self._offset_bytes < end_bytes:
            raise NetworkError(f"{self._what} ended after {self._offset_bytes} of {end_bytes} bytes", reason="ConnectionReset")
        if not chunk:
            self.close()
        self._deliver(chunk)
        return chunk

    def _deliver(self, chunk: bytes) -> None:
        self._fetched_bytes += len(chunk)
        self._offset_bytes += len(chunk)
        if not self._is_content_addressed:
            self._checksum = zlib.crc32(chunk, self._checksum)

    def _is_at_end(self) -> bool:
        return self._is_closed or (self._size_bytes is not None and self._offset_bytes >= self._size_bytes)

    def _open(self) -> None:
        response = self._open_at(self._offset_bytes if self._has_ranges else 0, self._validator)
        try:
            self._check_identity(response)
            self._place(response)
        except BaseException:
            response.close()
            raise
        self._response = response

    def _check_identity(self, response: HttpResponse) -> None:
        if self._is_content_addressed or response.status not in (200, 206):
            return
        validator = validator_of(response)
        if self._validator and validator and validator != self._validator:
            raise self._changed("it has another version")
        self._validator = self._validator or validator

    def _place(self, response: HttpResponse) -> None:
        """Bring ``response`` to the current offset, and remember where it will end."""
        if response.status in (206, 416):
            self._place_part(response)
            return
        length = response.content_length
        if self._size_bytes is not None and length is not None and length > self._size_bytes:
            raise VerificationError(f"{self._what} has {length} bytes, not the {self._size_bytes} promised", reason="SizeMismatch")
        self._response_end_bytes = length
        if self._offset_bytes:
            self._on_note(f"{self._what}: the server does not resume, skipping {format_size(self._offset_bytes)}")
            self._skip(response)

    def _place_part(self, response: HttpResponse) -> None:
        found = parse_content_range(response.headers.get("Content-Range", ""))
        if found is None or found[0] != self._offset_bytes:
            self._has_ranges = False
            got = response.headers.get("Content-Range", "none")[:80]
            raise NetworkError(f"{self._what}: asked for the range from byte {self._offset_bytes} on, the server answered {got!r}")
        _, last, total = found
        if self._size_bytes is not None and total is not None and total != self._size_bytes:
            raise self._changed(f"it now has {total} bytes, not {self._size_bytes}")
        self._response_end_bytes = total if total is not None else last + 1

    def _skip(self, response: HttpResponse) -> None:
        """Read over what was delivered already; it must be the same bytes as far as we have seen them."""
        checksum, position = zlib.crc32(b""), 0
        while position < self._offset_bytes:
            boundary = self._start_bytes if position < self._start_bytes else self._offset_bytes
            chunk = response.read(min(MIB, boundary - position))
            if not chunk:
                raise NetworkError(f"{self._what} ended while it was skipped to its place", reason="ConnectionReset")
            if position >= self._start_bytes and not self._is_content_addressed:
                checksum = zlib.crc32(chunk, checksum)
            position += len(chunk)
            self._fetched_bytes += len(chunk)
        if checksum != self._checksum:
            raise self._changed("it begins with other bytes")

    def _changed(self, how: str) -> VerificationError:
        return VerificationError(
            f"{self._what} changed while it was read: {how}",
            reason="SourceChanged",
            temporary=True,
            hint="start again from the beginning",
        )

    def _drop(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _wait_after(self, error: ImagekitError) -> None:
        """Wait before the next connection; connections without progress are counted, and one too many is the end."""
        if self._offset_bytes - self._failed_at_bytes >= _PROGRESS_BYTES:
            self._failures = 0
        self._failed_at_bytes = self._offset_bytes
        self._failures += 1
        policy = self._limits.retry
        if self._failures >= policy.attempts:
            raise error
        delay_seconds = policy.delay_seconds(self._failures, error, jitter=0.5)
        self._on_note(f"{error.message}; going on from byte {self._offset_bytes} in {format_duration(delay_seconds)}")
        self._clock.sleep(delay_seconds)


def validator_of(response: HttpResponse) -> str:
    """Return what names the version of an answer's body, fit for If-Range: a strong ETag, else the time of change."""
    tag = response.headers.get("ETag", "")
    if tag.startswith('"') and tag.endswith('"') and len(tag) < 1024:
        return tag
    return "" if tag else response.headers.get("Last-Modified", "")[:100]


def range_headers(offset_bytes: int, validator: str, *, size_bytes: int | None) -> dict[str, str]:
    """Return the request headers for a body from ``offset_bytes`` on; a closed range where the end is known.

    Some registries refuse open ranges.
    """
    if not offset_bytes:
        return {}
    condition = {"If-Range": validator} if validator else {}
    last = "" if size_bytes is None else str(size_bytes - 1)
    return {"Range": f"bytes={offset_bytes}-{last}", **condition}
