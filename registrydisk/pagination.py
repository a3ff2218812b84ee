"""Lists that come in pages: the Link header of the distribution-spec (RFC 8288), bounded and kept to its origin."""

from __future__ import annotations

import re
from urllib.parse import urljoin

from imagekit.base.errors import AccessError, ImageError, UsageError
from imagekit.base.units import MIB
from registrydisk.auth import Scopes
from registrydisk.endpoint import Endpoint
from registrydisk.http import HttpRequest
from registrydisk.manifest import parse_document
from registrydisk.origin import Origin, printable_url

_PAGE = 1000
_MOST_PAGES = 1000
_LARGEST_PAGE_BYTES = 4 * MIB
_NEXT = re.compile(r'<(?P<url>[^<>]{1,4096})>\s*;[^,<]*\brel\s*=\s*"?next"?', re.IGNORECASE)


def read_pages(endpoint: Endpoint, path: str, *, key: str, scopes: Scopes) -> list[str]:
    """Return the texts that all pages have under ``key``, in the order in which they come.

    Raises:
        ImageError: A page makes no sense, or there are too many.
        AccessError: A page names a next one on another server (RedirectRefused).
    """
    found: list[str] = []
    url = f"{endpoint.url(path)}?n={_PAGE}"
    for _ in range(_MOST_PAGES):
        request = HttpRequest(method="GET", url=url, doing=f"list the {key} of {endpoint.repository_name}")
        response = endpoint.send(request, scopes=scopes)
        link = response.headers.get("Link", "")
        document = parse_document(response.read_all(most_bytes=_LARGEST_PAGE_BYTES), what=f"the list at {printable_url(url)}")
        found += _texts(document.get(key))
        following = next_url(url, link)
        if following is None or following == url:
            return found
        url = following
    raise ImageError(f"the list at {printable_url(url)} has more than {_MOST_PAGES} pages", reason="TooLarge")


def next_url(url: str, link: str) -> str | None:
    """Return the page after ``url`` that the header ``link`` names, or None.

    Raises:
        AccessError: It is on another server, or no web address.
    """
    match = _NEXT.search(link[:8192])
    if match is None:
        return None
    try:
        following = str(urljoin(url, match["url"]))
        is_here = Origin.of(following) == Origin.of(url)
    except (UsageError, ValueError) as error:
        raise AccessError(f"{printable_url(url)} goes on at something that is no web address", reason="RedirectRefused") from error
    if not is_here:
        raise AccessError(f"{printable_url(url)} goes on at another server: {printable_url(following)}", reason="RedirectRefused")
    return following


def _texts(value: object) -> list[str]:
    if value is None:  # a repository whose last tag was deleted
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) and item.isprintable() for item in value):
        raise ImageError("the registry's list is no list of texts", reason="BadManifest")
    return value
