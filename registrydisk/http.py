"""HTTP as our clients need it: one session on requests, strict about redirects, secrets, sizes and time.

Secrets are headers that belong to the origin they are first sent to: a redirect to another scheme, host or port goes
without them, also when it leads back. Nothing is decoded, no cookie is kept, ``~/.netrc`` is not read.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import requests
import urllib3
from requests.structures import CaseInsensitiveDict

from imagekit.base.clock import Clock
from imagekit.base.errors import AccessError, ImagekitError, NetworkError
from imagekit.base.units import KIB, MIB
from registrydisk.access import HttpLimits, RegistryAccess
from registrydisk.certificates import Trust, find_trust, tls_context
from registrydisk.connection import ConnectionRules, OriginAdapter
from registrydisk.http_failures import FOREIGN_ERRORS, redact, status_error, transport_error
from registrydisk.origin import Origin, printable_url, redirect_target
from registrydisk.privacy import Privacy, address_check
from registrydisk.proxies import proxy_for

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LARGEST_ERROR_BYTES = MIB
_WORTH_READING_BYTES = 64 * KIB
_USER_AGENT = "imagekit"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """One request; a body that is not bytes can be sent once unless it can be iterated again.

    Attributes:
        secrets: Headers that only the URL's own origin may see.
        doing: What it is for, in a user's words, told when the server refuses it: "read the image quay.io/me/fedora:42".
        answer_seconds: How long the answer may take; the limits' value when omitted.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    doing: str = ""
    body: bytes | Iterable[bytes] | None = field(default=None, repr=False)
    answer_seconds: float | None = None

    @property
    def what(self) -> str:
        """The request for a reader: ``GET https://host/path``."""
        return f"{self.method} {printable_url(self.url)}"


class StallWatch:
    """Notices bodies that move too slowly; only the time spent waiting for the network counts."""

    def __init__(self, limits: HttpLimits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._waited_seconds = 0.0
        self._moved_bytes = 0

    def read(self, read: Callable[[], bytes], *, what: str) -> bytes:
        """Return what ``read`` returns.

        Raises:
            NetworkError: Too little came over the last while, with reason Stalled.
        """
        start = self._clock.monotonic()
        chunk = read()
        self._waited_seconds += self._clock.monotonic() - start
        self._moved_bytes += len(chunk)
        if self._waited_seconds >= self._limits.stall_seconds:
            if self._moved_bytes < self._limits.stall_bytes_per_second * self._waited_seconds:
                rate = self._moved_bytes / self._waited_seconds
                raise NetworkError(f"{what} stalled: {rate:.0f} bytes a second", reason="Stalled")
            self._waited_seconds, self._moved_bytes = 0.0, 0
        return chunk


class HttpResponse:
    """An answer whose body is still to be read; it must be closed."""

    def __init__(self, response: requests.Response, *, request: HttpRequest, watch: StallWatch) -> None:
        self._response = response
        self._request = request
        self._watch = watch
        self.url = request.url
        self.status = response.status_code
        self.headers: Mapping[str, str] = CaseInsensitiveDict(response.headers)

    @property
    def what(self) -> str:
        """The request for a reader."""
        return self._request.what

    @property
    def content_length(self) -> int | None:
        """The body's length as announced; None when it is not, or makes no sense."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isdecimal() and len(text) < 20 else None

    def read(self, size_bytes: int, /) -> bytes:
        """Return the next bytes of the body, ``b""`` at its end; a body shorter than announced is an error.

        Raises:
            NetworkError: The connection broke (ConnectionReset) or moves too slowly (Stalled).
        """
        try:
            return self._watch.read(lambda: self._response.raw.read1(size_bytes, decode_content=False), what=self.what)
        except FOREIGN_ERRORS as error:
            raise transport_error(error, what=self.what, origin=Origin.of(self.url), in_body=True) from error

    def read_all(self, *, most_bytes: int) -> bytes:
        """Return the whole body and close.

        Raises:
            ImagekitError: It is longer than ``most_bytes``, with reason AnswerTooLarge.
        """
        content = bytearray()
        try:
            while chunk := self.read(min(MIB, most_bytes + 1)):
                content += chunk
                if len(content) > most_bytes:
                    raise ImagekitError(f"the answer to {self.what} is larger than {most_bytes} bytes", reason="AnswerTooLarge")
        finally:
            self.close()
        announced = self.content_length
        if announced is not None and len(content) < announced and self._request.method != "HEAD":
            raise NetworkError(f"{self.what} ended after {len(content)} of {announced} bytes", reason="ConnectionReset")
        return bytes(content)

    def refusal(self, *, clock: Clock, hiding: Mapping[str, str] | None = None) -> ImagekitError:
        """Return the error that this answer means, and close.

        Args:
            hiding: More header values whose secrets the server may repeat to us, and the error must not.
        """
        try:
            body = self.read_all(most_bytes=_LARGEST_ERROR_BYTES)
        except ImagekitError:
            body = b""
        doing = self._request.doing
        refused = f"cannot {doing}: {Origin.of(self.url).authority} answered {self.status}" if doing else ""
        message = refused or f"{self.what} failed with status {self.status}"
        error = status_error(self.status, message=message, headers=self.headers, body=body, now=clock.now())
        error.message = redact(error.message, {**(hiding or {}), **self._request.secrets})
        error.args = (error.message,)
        return error

    def discard(self) -> None:
        """Close, after reading a short rest: the connection can be used again then."""
        length = self.content_length
        with contextlib.suppress(ImagekitError):
            if length is not None and length <= _WORTH_READING_BYTES:
                self.read_all(most_bytes=_WORTH_READING_BYTES)
        self.close()

    def close(self) -> None:
        """Give back the connection; one with an unread body is closed for good."""
        raw = self._response.raw
        if raw.length_remaining == 0 or self._request.method == "HEAD":
            raw.release_conn()
        raw.close()


class HttpSession:
    """Connections to any number of origins.

    Args:
        named: The origin that the user named; ``--insecure`` and ``--cert-dir`` are meant for its host alone.
        trusts: What configuration files say of single origins.
        check_address: Called with each peer's numeric address; raises to refuse it. When omitted, other hosts than the
            named one may not be on loopback or link-local addresses, unless the named one is there, too.
    """

    def __init__(
        self,
        *,
        access: RegistryAccess,
        named: Origin,
        trusts: Mapping[Origin, Trust] | None = None,
        check_address: Callable[[str], None] | None = None,
    ) -> None:
        self.access = access
        self._named = named
        self._trusts = trusts or {}
        self._check_address = check_address
        self._adapters: dict[Origin, tuple[OriginAdapter, Trust]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> HttpSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, request: HttpRequest, *, follows: bool = True) -> HttpResponse:
        """Return the answer, whatever its status; redirects of a GET or HEAD are followed.

        Raises:
            NetworkError: There is no answer.
            AccessError: TLS is not trusted, or a redirect is refused (TLSUntrusted, RedirectRefused, TooManyRedirects).
        """
        hops = 0
        while True:
            response = self._exchange(request)
            if not follows or request.method not in ("GET", "HEAD") or response.status not in _REDIRECTS:
                return response
            location = response.headers.get("Location")
            response.discard()
            request = redirected(request, redirect_target(request.url, location, hops=hops))
            hops += 1

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            adapters, self._adapters = list(self._adapters.values()), {}
        for adapter, _ in adapters:
            adapter.close()

    def _exchange(self, request: HttpRequest) -> HttpResponse:
        origin, limits = Origin.of(request.url), self.access.limits
        headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **request.headers, **request.secrets}
        proxy = proxy_for(origin, self.access.environment)
        connect_seconds = limits.connect_seconds if request.body is None else max(limits.connect_seconds, limits.stall_seconds)
        adapter, trust = self._adapter(origin)
        try:
            prepared = requests.Request(request.method, request.url, headers=headers, data=request.body).prepare()
            response = adapter.send(
                prepared,
                stream=True,
                timeout=(connect_seconds, request.answer_seconds or limits.stall_seconds),
                verify=not trust.is_unverified,
                proxies={origin.scheme: proxy} if proxy else None,
            )
        except FOREIGN_ERRORS as error:
            failure = transport_error(error, what=request.what, origin=origin)
            if isinstance(failure, AccessError):
                self._forget(origin)
            raise failure from error
        return HttpResponse(response, request=request, watch=StallWatch(limits, self.access.clock))

    def _adapter(self, origin: Origin) -> tuple[OriginAdapter, Trust]:
        with self._lock:
            if origin not in self._adapters:
                self._adapters[origin] = self._new_adapter(origin)
            return self._adapters[origin]

    def _new_adapter(self, origin: Origin) -> tuple[OriginAdapter, Trust]:
        limits, is_named = self.access.limits, origin.host == self._named.host
        trust = self._trusts.get(origin) or find_trust(origin, access=self.access, is_named=is_named)
        if trust.is_unverified:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user asked for it by name
        check = self._check_address or (None if is_named else _redirect_address_check(self._named))
        rules = ConnectionRules(connect_seconds=limits.connect_seconds, answer_seconds=limits.answer_seconds, check_address=check)
        tls = tls_context(trust) if origin.scheme == "https" else None
        return OriginAdapter(rules=rules, tls=tls), trust

    def _forget(self, origin: Origin) -> None:
        """Drop an origin's connections, so that the next request reads rotated certificates."""
        with self._lock:
            adapter, _ = self._adapters.pop(origin, (None, None))
        if adapter is not None:
            adapter.close()


def _redirect_address_check(named: Origin) -> Callable[[str], None]:
    def refusal(address: str) -> AccessError:
        message = f"{named.authority} redirects to {address}, which is inside this machine or its network"
        return AccessError(message, reason="RedirectRefused", hint="name that address yourself if it is meant")

    return address_check(named.host, refused=frozenset({Privacy.LOOPBACK, Privacy.LINK_LOCAL}), refusal=refusal)


def redirected(request: HttpRequest, url: str) -> HttpRequest:
    """Return ``request`` for the URL that a redirect names; its secrets stay with its origin."""
    keeps_secrets = Origin.of(url) == Origin.of(request.url)
    return HttpRequest(
        method=request.method,
        url=url,
        headers=request.headers,
        secrets=request.secrets if keeps_secrets else {},
        doing=request.doing,
        answer_seconds=request.answer_seconds,
    )
