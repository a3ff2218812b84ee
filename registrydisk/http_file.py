"""A file on a web server, read in order with resume or at any place by Range.

    with open_http(url, access=RegistryAccess(...), headers={"X-Token": "..."}, on_note=progress.note) as file:
        file.known_size_bytes  # None when the server does not say; size_bytes raises then
        file.supports_range    # probed by a real Range request: what HEAD or Accept-Ranges say is often wrong
        file.etag              # strong entity tag, or ""
        file.last_modified     # the header, or ""
        stream = file.open(offset_bytes=0)        # ByteStream with close(); resumes over broken connections
        file.read_at(offset_bytes, size_bytes)    # RandomReader; only with supports_range and a known size

``headers`` and ``access.credential`` (or ``user:password@`` in the URL) are secrets of the URL's own origin: a redirect
elsewhere goes without them. Redirects are resolved anew for every connection, so addresses that expire are no trouble.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from imagekit.base.errors import ImagekitError, NetworkError, VerificationError
from imagekit.base.retry import retry
from imagekit.base.units import MIB, format_duration
from registrydisk.access import Credential, RegistryAccess
from registrydisk.auth import basic_authorization
from registrydisk.http import HttpRequest, HttpResponse, HttpSession
from registrydisk.origin import Origin, printable_url
from registrydisk.resume import ResumingReader, parse_content_range, range_headers, validator_of

_RANGE_ANSWERED = frozenset({200, 206})
_READ_AHEAD_BYTES = MIB
Result = TypeVar("Result")


class HttpFile:
    """A file on a web server; made by ``open_http``. A RandomReader when ``supports_range`` and the size is known."""

    def __init__(
        self,
        session: HttpSession,
        *,
        url: str,
        secrets: Mapping[str, str],
        on_note: Callable[[str], None],
    ) -> None:
        self.url = url
        self._session = session
        self._secrets = secrets
        self._on_note = on_note
        self._read_ahead: tuple[int, bytes] = (0, b"")
        self._probe: HttpResponse | None = None
        self._look()

    def __enter__(self) -> HttpFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def size_bytes(self) -> int:
        """Length of the file.

        Raises:
            NetworkError: The server does not say it; ask ``known_size_bytes`` first.
        """
        if self.known_size_bytes is None:
            raise NetworkError(f"the server does not say how long {self.what} is", temporary=False)
        return self.known_size_bytes

    @property
    def what(self) -> str:
        """The file for a reader: its URL without anything secret."""
        return printable_url(self.url)

    def open(self, offset_bytes: int = 0) -> ResumingReader:
        """Return the file's bytes from ``offset_bytes`` on.

        Raises:
            NetworkError: The server cannot be reached.
        """
        reader = ResumingReader(
            self._open_at,
            what=self.what,
            access=self._session.access,
            offset_bytes=offset_bytes,
            size_bytes=self.known_size_bytes,
            validator=self.validator,
            on_note=self._on_note,
        )
        reader.open()
        return reader

    def read_at(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return exactly ``size_bytes`` from ``offset_bytes``, or fewer only at the end; small reads fetch ahead.

        Raises:
            NetworkError: The server cannot be reached, or gave up answering ranges.
            VerificationError: The file changed since it was opened, with reason SourceChanged.
        """
        size_bytes = max(min(size_bytes, self.size_bytes - offset_bytes), 0)
        start, ahead = self._read_ahead
        if start <= offset_bytes and offset_bytes + size_bytes <= start + len(ahead):
            return ahead[offset_bytes - start : offset_bytes - start + size_bytes]
        wanted = min(max(size_bytes, _READ_AHEAD_BYTES), self.size_bytes - offset_bytes)
        content = self._retried(lambda: self._fetch(offset_bytes, wanted))
        if len(content) <= _READ_AHEAD_BYTES:
            self._read_ahead = (offset_bytes, content)
        return content[:size_bytes]

    def close(self) -> None:
        """Close all connections."""
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        self._session.close()

    def _look(self) -> None:
        """Learn size, validators and whether ranges work, from a request for the file's first byte on.

        The answer is kept: reading from the beginning takes it instead of asking again.
        """
        response = self._retried(lambda: self._send(range_first=True))
        if response.status == 416:  # an empty file has no first byte; some servers do not know open ranges either
            response.close()
            response = self._retried(lambda: self._send(range_first=False))
        found = parse_content_range(response.headers.get("Content-Range", "")) if response.status == 206 else None
        if response.status == 206 and (found is None or found[0] != 0):
            response.close()  # a broken answer to Range: never ask for one again
            response = self._retried(lambda: self._send(range_first=False))
            found = None
        self.supports_range = found is not None
        self.known_size_bytes = found[2] if found is not None else response.content_length
        self.validator = validator_of(response)
        self.etag = self.validator if self.validator.startswith('"') else ""
        self.last_modified = response.headers.get("Last-Modified", "")
        self._probe = response

    def _open_at(self, offset_bytes: int, validator: str) -> HttpResponse:
        if offset_bytes == 0 and self._probe is not None:
            probe, self._probe = self._probe, None
            return probe
        headers = range_headers(offset_bytes, validator, size_bytes=self.known_size_bytes) if self.supports_range else {}
        return self._ask(headers, accepted=_RANGE_ANSWERED | {416})

    def _send(self, *, range_first: bool) -> HttpResponse:
        return self._ask({"Range": "bytes=0-"} if range_first else {}, accepted=_RANGE_ANSWERED | {416})

    def _ask(self, headers: Mapping[str, str], accepted: frozenset[int] = _RANGE_ANSWERED) -> HttpResponse:
        doing = f"download {printable_url(self.url)}"
        request = HttpRequest(method="GET", url=self.url, headers=headers, secrets=self._secrets, doing=doing)
        response = self._session.send(request)
        if response.status not in accepted:
            raise response.refusal(clock=self._session.access.clock)
        return response

    def _fetch(self, offset_bytes: int, size_bytes: int) -> bytes:
        condition = {"If-Range": self.validator} if self.validator else {}
        response = self._ask({"Range": f"bytes={offset_bytes}-{offset_bytes + size_bytes - 1}", **condition})
        found = parse_content_range(response.headers.get("Content-Range", ""))
        validator = validator_of(response)
        if self.validator and validator and validator != self.validator:
            response.close()
            raise VerificationError(f"{self.what} changed while it was read", reason="SourceChanged", temporary=True)
        if response.status != 206 or found is None or found[:2] != (offset_bytes, offset_bytes + size_bytes - 1):
            response.close()
            raise NetworkError(f"{self.what}: the server answered another range than the one asked for")
        content = response.read_all(most_bytes=size_bytes)
        if len(content) != size_bytes:
            raise NetworkError(f"{self.what}: the server sent {len(content)} of {size_bytes} bytes", reason="ConnectionReset")
        return content

    def _retried(self, call: Callable[[], Result]) -> Result:
        access = self._session.access
        return retry(call, policy=access.limits.retry, clock=access.clock, on_retry=self._note_retry)

    def _note_retry(self, error: ImagekitError, delay_seconds: float) -> None:
        self._on_note(f"{error.message}; trying again in {format_duration(delay_seconds)}")


def open_http(
    url: str,
    *,
    access: RegistryAccess,
    headers: Mapping[str, str] | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> HttpFile:
    """Return the file at ``url``, after one request for its beginning.

    Args:
        headers: More headers; kept from every other origin, since they may be secrets.

    Raises:
        UsageError: It is no http or https URL, with reason BadURL.
        NotFoundError: There is no such file.
        AccessError: The server refuses us, or is not trusted.
        NetworkError: It cannot be reached.
    """
    origin = Origin.of(url)
    bare_url, credential = split_credential(url)
    secrets = dict(headers or {})
    if chosen := access.credential or credential:
        secrets["Authorization"] = basic_authorization(chosen)
    session = HttpSession(access=access, named=origin)
    try:
        return HttpFile(session, url=bare_url, secrets=secrets, on_note=on_note)
    except BaseException:
        session.close()
        raise


def split_credential(url: str) -> tuple[str, Credential | None]:
    """Return ``url`` without ``user:password@``, and what stood there."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return urlunsplit(parts._replace(fragment="")), None
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    return bare, Credential(username=unquote(parts.username or ""), password=unquote(parts.password or ""))
