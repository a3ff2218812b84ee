"""What goes wrong over HTTP, told in the toolkit's error tree: translated here once, chained to its cause."""

from __future__ import annotations

import base64
import binascii
import json
import ssl
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime

import requests
import urllib3

from imagekit.base.errors import AccessError, ImagekitError, NetworkError, NotFoundError
from registrydisk.origin import Origin

FOREIGN_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)
_RETRIED_STATUSES = frozenset({408, 500, 502, 503, 504})
_MOST_CAUSES = 20
_MOST_TEXT = 300


def transport_error(error: BaseException, *, what: str, origin: Origin, in_body: bool = False) -> ImagekitError:
    """Return the toolkit's error for a failure of ``what``, like ``GET https://…``, below the level of answers.

    Args:
        in_body: Whether the answer's head was there already; TLS trouble is a broken connection then.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ImagekitError):
            return cause
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _untrusted(cause, origin=origin)
        if isinstance(cause, ssl.SSLError) and not in_body and (failure := _tls_failure(cause, origin=origin)) is not None:
            return failure
    return _broken(causes, what=what, origin=origin)


def is_not_tls(error: BaseException) -> bool:
    """Return whether a handshake failed because the other side does not speak TLS at all."""
    return any(isinstance(cause, ssl.SSLError) and cause.reason in _NOT_TLS for cause in _causes(error))


def status_error(status: int, *, message: str, headers: Mapping[str, str], body: bytes, now: float) -> ImagekitError:
    """Return the toolkit's error for an answer with a status that refuses; the server's own words follow ``message``."""
    said = _server_message(body)
    message += f": {said}" if said else ""
    match status:
        case 401:
            return AccessError(message, reason="Unauthorized", hint="log in with `registrydisk login`, or give --creds")
        case 403:
            return AccessError(
                message, reason="Forbidden", hint="these credentials may not do this; ask the owner for the right to"
            )
        case 404:
            return NotFoundError(message)
        case 405:
            return ImagekitError(message, reason="RequestRefused", hint="the server does not allow this; it may be read-only")
        case 429:
            return _rate_limited(message, retry_after=headers.get("Retry-After"), now=now)
        case _ if status in _RETRIED_STATUSES:
            after = parse_retry_after(headers.get("Retry-After"), now=now)
            return NetworkError(message, retry_after_seconds=after, hint="the server has trouble; try again later")
        case _:
            return ImagekitError(message, reason="RequestRefused")


def parse_retry_after(text: str | None, *, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110 section 10.2.3); None when it makes no sense."""
    if not text:
        return None
    if text.strip().isdecimal() and len(text) <= 12:
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (TypeError, ValueError, OverflowError):
        return None


def redact(text: str, secrets: Mapping[str, str]) -> str:
    """Return ``text`` without what the header values in ``secrets`` carry, should a server repeat it to us."""
    for value in secrets.values():
        for part in _secret_parts(value):
            text = text.replace(part, "***")
    return text


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk every way in which requests, urllib3 and Python wrap an error in another."""
    pending, seen = [error], set[int]()
    while pending and len(seen) < _MOST_CAUSES:
        cause = pending.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        wrapped: list[object] = [getattr(cause, "reason", None), cause.__cause__, cause.__context__, *cause.args]
        pending += [item for item in wrapped if isinstance(item, BaseException)]


def _untrusted(cause: ssl.SSLCertVerificationError, *, origin: Origin) -> AccessError:
    return AccessError(
        f"the certificate of {origin.authority} is not trusted: {cause.verify_message}",
        reason="TLSUntrusted",
        hint=f"put the authority's certificate into /etc/containers/certs.d/{origin.authority}/ca.crt, or name its directory with "
        "--cert-dir",
    )


_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL"})


def _tls_failure(cause: ssl.SSLError, *, origin: Origin) -> ImagekitError | None:
    if type(cause) is not ssl.SSLError:  # its subclasses are broken connections
        return None
    if cause.reason in _NOT_TLS:
        hint = "if it speaks plain http, say so with --plain-http"
        return AccessError(f"{origin.authority} does not speak TLS", reason="TLSUntrusted", hint=hint)
    words = (cause.reason or "the handshake failed").replace("_", " ").lower()
    hint = "TLS 1.2 or newer and a certificate without SHA-1 are needed"
    return AccessError(f"no secure connection to {origin.authority}: {words}", reason="TLSUntrusted", hint=hint)


def _broken(causes: list[BaseException], *, what: str, origin: Origin) -> NetworkError:
    # In this order: a refused connection is also a failed new connection, and urllib3 calls that one a timeout.
    if _has(causes, urllib3.exceptions.NameResolutionError):
        return NetworkError(f"the name {origin.host} cannot be resolved", hint="check the name and this machine's DNS")
    if _has(causes, urllib3.exceptions.ProxyError):
        return NetworkError(f"{what} failed at the proxy", hint="check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
    if _has(causes, ConnectionRefusedError):
        return NetworkError(f"{origin.authority} refuses connections", hint="check the port and whether the server runs")
    if _has(causes, requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
        return NetworkError(f"{what} stalled: nothing came for too long", reason="Stalled")
    if _has(causes, TimeoutError):
        return NetworkError(f"{origin.authority} does not answer in time", reason="Stalled", hint="check the address and firewalls")
    if _has(causes, urllib3.exceptions.NewConnectionError):
        return NetworkError(f"{origin.authority} cannot be reached", hint="check the address and this machine's network")
    return NetworkError(f"{what} failed: the connection broke", reason="ConnectionReset")


def _has(causes: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)


def _rate_limited(message: str, *, retry_after: str | None, now: float) -> NetworkError:
    after = parse_retry_after(retry_after, now=now)
    hint = "the server limits how often it is asked; try again later, or log in, which often raises the limit"
    return NetworkError(message, reason="RateLimited", retry_after_seconds=after, hint=hint)


def _server_message(body: bytes) -> str:
    """Return what the server says, if it is the registries' JSON (distribution-spec, error codes), made printable."""
    try:
        errors = json.loads(body)["errors"]
        parts = [f"{entry.get('code', '')} {entry.get('message', '')}".strip() for entry in errors[:3]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return "".join(character if character.isprintable() else " " for character in "; ".join(parts))[:_MOST_TEXT]


def _secret_parts(value: str) -> Iterator[str]:
    kind, _, rest = value.partition(" ")
    yield value
    if rest:
        yield rest
    if kind.lower() == "basic":
        try:
            decoded = base64.b64decode(rest, validate=True).decode()
        except (binascii.Error, ValueError):
            return
        yield decoded
        yield from filter(None, [decoded.partition(":")[2]])
