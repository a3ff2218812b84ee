"""Whom we ask for a token: the rule that keeps a registry from sending our password somewhere else.

A registry names its token service itself (WWW-Authenticate, ``realm``), so a hostile one could name any server, or an
address inside our network. The realm must be https on the registry's own domain or on a known pair of hosts; its
address, checked on the connection itself, must not be more private than the registry's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from imagekit.base.errors import AccessError, UsageError
from registrydisk.origin import Origin
from registrydisk.privacy import Privacy, address_check

# Registries whose token service is on another domain, as their documentation says.
_KNOWN_TOKEN_HOSTS = {
    "registry.redhat.io": frozenset({"sso.redhat.com"}),
    "registry.connect.redhat.com": frozenset({"sso.redhat.com"}),
    "nvcr.io": frozenset({"authn.nvidia.com"}),
}
# Below these names, strangers own neighbouring names; so the name under them is the registrable one.
_SHARED_SUFFIXES = frozenset(
    (
        *("amazonaws.com", "appspot.com", "azurecr.io", "azurewebsites.net", "cloudapp.net", "cloudfront.net", "duckdns.org"),
        *("fly.dev", "github.io", "gitlab.io", "googleapis.com", "herokuapp.com", "netlify.app", "ngrok.app", "ngrok.io"),
        *("ngrok-free.app", "nip.io", "onrender.com", "pages.dev", "r2.dev", "run.app", "sslip.io", "trycloudflare.com"),
        *("ts.net", "vercel.app", "web.app", "windows.net", "workers.dev", "xip.io"),
    )
)
_SECOND_LEVELS = frozenset(
    {"ac", "co", "com", "edu", "go", "gob", "gov", "gv", "ltd", "mil", "ne", "net", "nom", "or", "org", "plc", "sch"}
)


def check_realm(realm: str, *, registry: Origin, token_hosts: Sequence[str] = ()) -> Origin:
    """Return the origin of ``realm`` when ``registry`` may name it.

    Args:
        token_hosts: More ``HOST[:PORT]`` that the user trusts with the registry's credentials.

    Raises:
        AccessError: It may not, with reason RealmRefused.
    """
    try:
        origin = Origin.of(realm)
    except UsageError as error:
        raise _refused(realm, registry, "it is no web address") from error
    if "@" in realm.partition("://")[2].partition("/")[0]:
        raise _refused(str(origin), registry, "it contains credentials")
    if origin.authority in token_hosts or origin.host in token_hosts:
        return origin
    if origin.scheme == "http":
        if registry.scheme == "http" and (origin.host, origin.port) == (registry.host, registry.port):
            return origin
        raise _refused(str(origin), registry, "credentials would travel unprotected")
    if not _are_related(origin.host, registry.host):
        raise _refused(str(origin), registry, "it belongs to somebody else")
    return origin


def realm_address_check(registry: Origin) -> Callable[[str], None]:
    """Return a check of the address that a token service turned out to have; it raises AccessError (RealmRefused)."""
    why = "that address is inside a private network and the registry is not"
    refused = frozenset({Privacy.PRIVATE, Privacy.LOOPBACK, Privacy.LINK_LOCAL})
    return address_check(registry.host, refused=refused, refusal=lambda address: _refused(address, registry, why))


def registrable_domain(host: str) -> str:
    """Return the part of ``host`` that one owner registered, cautiously: rather too long than too short."""
    labels = host.rstrip(".").split(".")
    if len(labels) <= 2 or _is_address(host):
        return host
    for start in range(1, len(labels)):
        if ".".join(labels[start:]) in _SHARED_SUFFIXES:
            return ".".join(labels[start - 1 :])
    is_country = len(labels[-1]) == 2 and (labels[-2] in _SECOND_LEVELS or len(labels[-2]) <= 2)
    return ".".join(labels[-3 if is_country else -2 :])


def _are_related(realm_host: str, registry_host: str) -> bool:
    if realm_host == registry_host or realm_host in _KNOWN_TOKEN_HOSTS.get(registry_host, frozenset()):
        return True
    domain = registrable_domain(registry_host)
    return "." in domain and not _is_address(registry_host) and registrable_domain(realm_host) == domain


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _refused(realm: str, registry: Origin, why: str) -> AccessError:
    return AccessError(
        f"{registry.authority} wants its token asked for at {realm[:200]!r}, which is refused: {why}",
        reason="RealmRefused",
        hint="nothing was sent there; if you trust that host with this registry's credentials, name it with --token-host",
    )
