"""One registry server: which scheme it speaks, who we are to it, and requests that are tried again (distribution-spec)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from dataclasses import replace

from imagekit.base.errors import AccessError, ImagekitError, NetworkError
from imagekit.base.progress import Progress
from imagekit.base.retry import retry
from imagekit.base.units import format_duration
from registrydisk.access import RegistryAccess
from registrydisk.auth import Authenticator, Scopes
from registrydisk.credentials import CredentialSearch, FoundCredential, find_credential
from registrydisk.hosts import RegistryHost
from registrydisk.http import HttpRequest, HttpResponse, HttpSession
from registrydisk.http_failures import is_not_tls
from registrydisk.origin import Origin

_SUCCESS = frozenset({200})
_MIRROR_ATTEMPTS = 2


class Endpoint:
    """A server with one repository; safe from several threads."""

    def __init__(self, host: RegistryHost, *, access: RegistryAccess, progress: Progress) -> None:
        own = access if host.is_named else _for_mirror(access)
        self.host = host
        self.access = own
        self._progress = progress
        self._origin: Origin | None = None
        self._session: HttpSession | None = None
        self._authenticator: Authenticator | None = None
        self._search = CredentialSearch()
        self._lock = threading.RLock()

    @property
    def origin(self) -> Origin:
        """Where the server is; asked for the first time, it finds out which scheme the server speaks."""
        self._connected()
        assert self._origin is not None
        return self._origin

    def url(self, path: str = "") -> str:
        """Return the URL of ``path`` below the repository, or of the API's root."""
        tail = f"{self.host.repository}/{path}" if path else ""
        return f"{self.origin}{self.host.prefix}/{tail}"

    @property
    def repository_name(self) -> str:
        """The repository as a user writes it."""
        return f"{self.host.name}/{self.host.repository}"

    @property
    def uploading(self) -> str:
        """What a request of an upload is for."""
        return f"upload to {self.repository_name}"

    def pull_scopes(self) -> Scopes:
        """Return what reading needs."""
        return (f"repository:{self.host.repository}:pull",)

    def push_scopes(self, *mounted: str) -> Scopes:
        """Return what writing needs, and reading from the repositories ``mounted``."""
        own = f"repository:{self.host.repository}:pull,push"
        return (own, *(f"repository:{name}:pull" for name in mounted))

    def send(
        self, request: HttpRequest, *, scopes: Scopes, accepted: frozenset[int] = _SUCCESS, follows: bool = True
    ) -> HttpResponse:
        """Return an accepted answer, trying again while failures are temporary; bodies must be replayable.

        Raises:
            ImagekitError: The answer is another one, in the error tree's terms.
        """
        return retry(
            lambda: self.send_once(request, scopes=scopes, accepted=accepted, follows=follows),
            policy=self.access.limits.retry,
            clock=self.access.clock,
            on_retry=self.note_retry,
        )

    def send_once(
        self, request: HttpRequest, *, scopes: Scopes, accepted: frozenset[int] = _SUCCESS, follows: bool = True
    ) -> HttpResponse:
        """Return an accepted answer; a 401 is answered with credentials, but a failure is not tried again."""
        session, authenticator = self._connected()
        response = self._authenticated(session, authenticator, request, scopes=scopes, follows=follows)
        if response.status in accepted:
            return response
        refusal = response.refusal(clock=self.access.clock, hiding=authenticator.known_secrets())
        if isinstance(refusal, AccessError):
            is_ours = Origin.of(response.url) == self.origin  # and not the storage that it redirects to
            if is_ours and request.method in ("GET", "HEAD") and authenticator.forsake_credential(scopes):
                return self.send_once(request, scopes=scopes, accepted=accepted, follows=follows)
            refusal.hint = self._access_hint(authenticator)
        raise refusal

    def note_retry(self, error: ImagekitError, delay_seconds: float) -> None:
        """Tell that something is tried again, and when."""
        self._progress.note(f"{error.message}; trying again in {format_duration(delay_seconds)}")

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            if self._authenticator is not None:
                self._authenticator.close()
            if self._session is not None:
                self._session.close()

    def _authenticated(
        self, session: HttpSession, authenticator: Authenticator, request: HttpRequest, *, scopes: Scopes, follows: bool
    ) -> HttpResponse:
        response = session.send(self._with_secrets(request, authenticator, scopes), follows=follows)
        is_ours = Origin.of(response.url) == self.origin
        if response.status != 401 or not is_ours:
            return response
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(response.discard)
            authenticator.challenge(response.headers.get("WWW-Authenticate", ""), scopes)
            if not _is_replayable(request.body):
                cleanup.pop_all()
                return response
        return session.send(self._with_secrets(request, authenticator, scopes), follows=follows)

    def _with_secrets(self, request: HttpRequest, authenticator: Authenticator, scopes: Scopes) -> HttpRequest:
        """Add what only the registry's own origin may see; a request to another one goes without."""
        if Origin.of(request.url) != self.origin:
            return request
        return replace(request, secrets={**self.host.headers, **authenticator.secrets(scopes)})

    def _connected(self) -> tuple[HttpSession, Authenticator]:
        with self._lock:
            if self._session is None or self._authenticator is None:
                self._connect()
            assert self._session is not None
            assert self._authenticator is not None
            return self._session, self._authenticator

    def _connect(self) -> None:
        first_error: ImagekitError | None = None
        for scheme in self.host.schemes:
            origin = Origin.of(f"{scheme}://{self.host.authority}")
            trusts = {origin: self.host.trust} if self.host.trust else {}
            session = HttpSession(access=self.access, named=origin, trusts=trusts)
            try:
                if len(self.host.schemes) > 1:
                    self._ping(session, origin)
            except (AccessError, NetworkError) as error:
                session.close()
                if first_error is not None or scheme == "http" or not _may_fall_back(error):
                    raise first_error or error from None
                first_error = error
                continue
            self._origin, self._session = origin, session
            self._authenticator = Authenticator(
                access=self.access, registry=origin, find_credential=self._find_credential, on_note=self._progress.note
            )
            return

    def _ping(self, session: HttpSession, origin: Origin) -> None:
        request = HttpRequest(method="GET", url=f"{origin}{self.host.prefix}/")
        session.send(request, follows=False).close()

    def _find_credential(self) -> FoundCredential | None:
        return find_credential(f"{self.host.name}/{self.host.repository}", access=self.access, search=self._search)

    def _access_hint(self, authenticator: Authenticator) -> str:
        tried = f" (looked at: {', '.join(self._search.tried[:6])})" if self._search.tried else ""
        return authenticator.hint + tried


def _for_mirror(access: RegistryAccess) -> RegistryAccess:
    """Return what holds for a mirror: what the user said is about the registry that was named, and others wait behind it."""
    limits = replace(access.limits, retry=replace(access.limits.retry, attempts=_MIRROR_ATTEMPTS))
    return replace(access, credential=None, is_insecure=False, certificate_directory=None, token_hosts=(), limits=limits)


def _may_fall_back(error: ImagekitError) -> bool:
    """Return whether an https failure leaves room for plain http: the port speaks no TLS, or breaks it off."""
    return isinstance(error, NetworkError) or is_not_tls(error)


def _is_replayable(body: bytes | Iterable[bytes] | None) -> bool:
    return body is None or isinstance(body, bytes) or hasattr(body, "__len__")
