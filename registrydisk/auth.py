"""Proving to a registry who we are: Basic, and bearer tokens from its token service (distribution-spec, token auth).

Tokens are kept for each set of scopes and renewed shortly before they expire, or when the registry says so in the
middle of a transfer. Nothing is sent to a token service before ``registrydisk.realm`` allowed it.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from imagekit.base.errors import AccessError, ImageError
from imagekit.base.retry import retry
from imagekit.base.units import MIB
from registrydisk.access import Credential, RegistryAccess
from registrydisk.challenge import Challenge, parse_challenges
from registrydisk.credentials import FoundCredential
from registrydisk.http import HttpRequest, HttpSession
from registrydisk.manifest import parse_document
from registrydisk.origin import Origin
from registrydisk.realm import check_realm, realm_address_check

_CLIENT_ID = "imagekit"
_ASKING = "get a token"
_LARGEST_TOKEN_BYTES = MIB
_DEFAULT_LIFETIME_SECONDS = 60.0
_RENEWED_BEFORE_SECONDS = 10.0
_CREDENTIAL_REFUSED = frozenset({400, 401, 403})

Scopes = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    value: str = field(repr=False)
    expires_at: float


class Authenticator:
    """What one registry gets to see of us.

    Args:
        find_credential: Asked once, and only when the registry wants to know who we are.
        on_note: Told in one line when stored credentials turn out to be useless.
    """

    def __init__(
        self,
        *,
        access: RegistryAccess,
        registry: Origin,
        find_credential: Callable[[], FoundCredential | None],
        on_note: Callable[[str], None],
    ) -> None:
        self._access = access
        self._registry = registry
        self._find_credential = find_credential
        self._on_note = on_note
        self._session: HttpSession | None = None
        self._found: FoundCredential | None = None
        self._refused: FoundCredential | None = None
        self._is_found = False
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, _Token] = {}
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the connections to the token service."""
        if self._session is not None:
            self._session.close()

    def secrets(self, scopes: Scopes) -> Mapping[str, str]:
        """Return the headers that prove who we are, as far as the registry has asked for any."""
        with self._lock:
            if self._challenge is None:
                return {}
            if self._challenge.scheme == "basic":
                return self._basic(self._challenge)
            token = self._tokens.get(scopes)
            if token is None or token.expires_at <= self._access.clock.monotonic():
                token = self._fetch(self._challenge, scopes)
            return {"Authorization": f"Bearer {token.value}"}

    def challenge(self, header: str, scopes: Scopes) -> None:
        """Take a 401 answer's WWW-Authenticate; the next ``secrets`` answers it.

        Raises:
            AccessError: The registry asks for something that we cannot or will not do.
        """
        challenges = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header))}
        chosen = challenges.get("bearer") or challenges.get("basic")
        if chosen is None:
            asked = ", ".join(sorted(challenges)) or "nothing that we understand"
            raise AccessError(f"{self._registry.authority} asks for {asked[:100]}, not for Basic or Bearer")
        with self._lock:
            self._challenge = chosen
            self._tokens.pop(scopes, None)

    def forsake_credential(self, scopes: Scopes) -> bool:
        """Go on without stored credentials that the registry refused; return whether that makes sense.

        A public image can be read without any; nothing can be written, and what the user gave is never left out.
        """
        with self._lock:
            found = self._credential()
            is_reading = all(scope.endswith(":pull") for scope in scopes)
            if found is None or found.is_explicit or not is_reading:
                return False
            self._on_note(f"the credentials for {self._registry.authority} from {found.place} were refused; going on without them")
            self._found, self._refused = None, found
            self._tokens.clear()
            return True

    def known_secrets(self) -> Mapping[str, str]:
        """Return what a server could repeat to us and no error may show, as header values."""
        credential = self._found.credential if self._found is not None else None
        if credential is None:
            return {}
        secrets = {"password": basic_authorization(credential)}
        return {**secrets, "identity token": credential.identity_token} if credential.identity_token else secrets

    @property
    def hint(self) -> str:
        """What to do when the registry refuses us."""
        found = self._found or self._refused
        if found is None:
            return f"no credentials were found for it; log in with `registrydisk login {self._registry.authority}`, or give --creds"
        return f"the credentials from {found.place} were refused; log in again with `registrydisk login {self._registry.authority}`"

    def _credential(self) -> FoundCredential | None:
        if not self._is_found:
            self._found = self._find_credential()
            self._is_found = True
        return self._found

    def _basic(self, challenge: Challenge) -> Mapping[str, str]:
        found = self._credential()
        if found is None:
            return {}
        return {"Authorization": basic_authorization(found.credential)}

    def _fetch(self, challenge: Challenge, scopes: Scopes) -> _Token:
        realm = challenge.parameters.get("realm", "")
        origin = check_realm(realm, registry=self._registry, token_hosts=self._access.token_hosts)
        session = self._token_session(origin)
        found = self._credential()
        request = _token_request(challenge, scopes, credential=found.credential if found else None)
        response = retry(lambda: _answer(session, request), policy=self._access.limits.retry, clock=self._access.clock)
        if response[0] in _CREDENTIAL_REFUSED and self.forsake_credential(scopes):
            return self._fetch(challenge, scopes)
        if response[0] != 200:
            error = AccessError(
                f"{origin.authority} gives no token for {self._registry.authority}: status {response[0]}", hint=self.hint
            )
            if response[0] == 403:
                error.reason = "Forbidden"
            raise error
        token = self._tokens[scopes] = _parse_token(response[1], now=self._access.clock.monotonic())
        return token

    def _token_session(self, origin: Origin) -> HttpSession:
        if self._session is None:
            is_trusted = origin.authority in self._access.token_hosts or origin.host in self._access.token_hosts
            check = None if is_trusted else realm_address_check(self._registry)
            self._session = HttpSession(access=self._access, named=self._registry, check_address=check)
        return self._session


def basic_authorization(credential: Credential) -> str:
    """Return the value of an Authorization header (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()


def _token_request(challenge: Challenge, scopes: Scopes, *, credential: Credential | None) -> HttpRequest:
    realm, service = challenge.parameters["realm"], challenge.parameters.get("service", "")
    asked = scopes or tuple(challenge.parameters.get("scope", "").split())
    if credential is not None and credential.identity_token:
        form = {"grant_type": "refresh_token", "service": service, "scope": " ".join(asked), "client_id": _CLIENT_ID}
        body = urlencode({**form, "refresh_token": credential.identity_token}).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return HttpRequest(method="POST", url=realm, headers=headers, body=body, doing=_ASKING)
    parts = urlsplit(realm)
    query = parse_qsl(parts.query, keep_blank_values=True)
    query += [("service", service)] if service else []
    query += [("scope", scope) for scope in asked]
    query += [("client_id", _CLIENT_ID)]
    secrets = {"Authorization": basic_authorization(credential)} if credential is not None else {}
    return HttpRequest(method="GET", url=urlunsplit(parts._replace(query=urlencode(query))), secrets=secrets, doing=_ASKING)


def _answer(session: HttpSession, request: HttpRequest) -> tuple[int, bytes]:
    response = session.send(request)
    if response.status == 429 or response.status >= 500:
        raise response.refusal(clock=session.access.clock)
    return response.status, response.read_all(most_bytes=_LARGEST_TOKEN_BYTES)


def _parse_token(content: bytes, *, now: float) -> _Token:
    try:
        document: dict[str, Any] = parse_document(content, what="the token service's answer")
    except ImageError as error:
        raise AccessError(error.message) from error
    value = document.get("token") or document.get("access_token")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise AccessError("the token service's answer has no token")
    lifetime = document.get("expires_in")
    seconds = float(lifetime) if isinstance(lifetime, int | float) and 0 < lifetime < 1e9 else _DEFAULT_LIFETIME_SECONDS
    return _Token(value=value, expires_at=now + max(seconds - _RENEWED_BEFORE_SECONDS, seconds / 2))
