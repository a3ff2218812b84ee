"""Origins of URLs, and the rule by which a redirect may be followed (RFC 6454, RFC 9110 section 15.4)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from imagekit.base.errors import AccessError, UsageError

MOST_REDIRECTS = 5
_DEFAULT_PORTS = {"http": 80, "https": 443}
# A name, in any script, or an IPv6 address. Hosts become names of directories with certificates: ".." is none.
_HOST = re.compile(r"(?=.{1,253}$)(?:[\w-]+(?:\.[\w-]+)*\.?|[0-9a-f]*:[0-9a-f:.]*(?:%\w+)?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Scheme, host and port: what a secret is bound to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Return the origin of ``url``.

        Raises:
            UsageError: It is no http or https URL with a host.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UsageError(f"{printable_url(url)!r} is not a URL", reason="BadURL") from error
        if parts.scheme not in _DEFAULT_PORTS or not host or not _HOST.fullmatch(host):
            raise UsageError(f"{printable_url(url)!r} is not an http or https URL", reason="BadURL")
        return cls(parts.scheme, host.lower(), port or _DEFAULT_PORTS[parts.scheme])

    @property
    def authority(self) -> str:
        """``host`` or ``host:port``, the port only when it is not the scheme's."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine by its name or number; no resolver is asked."""
        return is_loopback_host(self.host)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def is_loopback_host(host: str) -> bool:
    """Return whether ``host`` is ``localhost`` or a loopback address."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def printable_url(url: str) -> str:
    """Return ``url`` for a reader: without user, password, query and fragment, which may be secrets."""
    head, slashes, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    path = path.partition("?")[0].partition("#")[0]
    authority = authority.rpartition("@")[2].partition("?")[0].partition("#")[0]
    text = f"{head}{slashes}{authority}{slash}{path}" if slashes else url.partition("?")[0]
    return "".join(character if character.isprintable() else "?" for character in text[:300])


def redirect_target(url: str, location: str | None, *, hops: int) -> str:
    """Return where a redirect from ``url`` leads, after ``hops`` earlier ones.

    Raises:
        AccessError: It is one too many (TooManyRedirects), leads from https to http or nowhere (RedirectRefused).
    """
    if hops >= MOST_REDIRECTS:
        raise AccessError(f"{printable_url(url)} redirects more than {MOST_REDIRECTS} times", reason="TooManyRedirects")
    if not location:
        raise AccessError(f"{printable_url(url)} redirects to nowhere", reason="RedirectRefused")
    try:
        target = urljoin(url, location)
        is_downgrade = Origin.of(target).scheme == "http" and Origin.of(url).scheme == "https"
    except (UsageError, ValueError) as error:
        message = f"{printable_url(url)} redirects to something that is no web address"
        raise AccessError(message, reason="RedirectRefused") from error
    if is_downgrade:
        raise AccessError(
            f"{printable_url(url)} redirects from https to http: {printable_url(target)}",
            reason="RedirectRefused",
            hint="bytes and credentials would travel unprotected; ask the server's owner to redirect to https "
            "(a proxy in front of a registry must send X-Forwarded-Proto)",
        )
    return target
