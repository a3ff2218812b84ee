"""WWW-Authenticate: the challenges of a 401 answer (RFC 9110 section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_LONGEST_HEADER = 16 * 1024
_SEPARATORS = re.compile(r"[\s,]*")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PARAMETER = re.compile(
    r'(?P<name>[!#$%&\'*+\-.^_`|~0-9A-Za-z]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"=][^\s,"]*))'
)
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))")
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One way in which a server lets us prove who we are; scheme and parameter names are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Return the challenges in ``header``, as far as they can be understood; never raises.

    A header may hold several challenges, and their parameters are separated by commas like the challenges themselves.
    """
    header = header[:_LONGEST_HEADER]
    challenges: list[Challenge] = []
    place = _skip(header, 0)
    while place < len(header):
        scheme = _TOKEN.match(header, place)
        if scheme is None:
            break
        parameters, place = _parameters(header, _skip(header, scheme.end()))
        challenges.append(Challenge(scheme=scheme[0].lower(), parameters=parameters))
    return tuple(challenges)


def _parameters(header: str, place: int) -> tuple[dict[str, str], int]:
    parameters: dict[str, str] = {}
    while match := _PARAMETER.match(header, place):
        quoted = match["quoted"]
        value = match["plain"] if quoted is None else _ESCAPE.sub(r"\1", quoted)
        parameters.setdefault(match["name"].lower(), value)  # a second one cannot replace what the first one said
        place = _skip(header, match.end())
    if not parameters and (token := _TOKEN68.match(header, place)) and "=" in token[0]:
        place = _skip(header, token.end())
    return parameters, place


def _skip(header: str, place: int) -> int:
    match = _SEPARATORS.match(header, place)
    return match.end() if match else place
