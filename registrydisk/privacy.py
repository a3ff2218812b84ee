"""How private an address is, so that a server outside cannot send us to one inside (server-side request forgery)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from enum import IntEnum

from imagekit.base.errors import ImagekitError


class Privacy(IntEnum):
    """How far an address is from the public network."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    LINK_LOCAL = 3


def privacy_of(address: str) -> Privacy:
    """Return how private the numeric ``address`` is."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if parsed.is_link_local:  # cloud metadata services are there, too
        return Privacy.LINK_LOCAL
    if parsed.is_loopback or parsed.is_unspecified:
        return Privacy.LOOPBACK
    return Privacy.PUBLIC if parsed.is_global else Privacy.PRIVATE


def address_check(
    home: str,
    *,
    refused: frozenset[Privacy],
    refusal: Callable[[str], ImagekitError],
    resolve: Callable[[str], Sequence[str]] | None = None,
) -> Callable[[str], None]:
    """Return a check that raises ``refusal(address)`` for addresses of a ``refused`` kind.

    An address of a kind that the host ``home`` has itself is always good: what lives inside may point inside.
    """

    def check(address: str) -> None:
        privacy = privacy_of(address)
        if privacy in refused and privacy not in {privacy_of(known) for known in (resolve or _resolve)(home)}:
            raise refusal(address)

    return check


def _resolve(host: str) -> list[str]:
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []
