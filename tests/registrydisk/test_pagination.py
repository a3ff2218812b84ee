"""Lists that come in pages."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from imagekit.base.errors import AccessError, ImageError, NotFoundError
from registrydisk.pagination import next_url
from registrydisk.remote import list_tags
from tests.registrydisk.remote_access import patient, reference
from tests.support.fault_registry import FaultRegistry, fault_registry
from tests.support.fault_server import Fault, body, header, status, together


@pytest.fixture
def faulty() -> Iterator[FaultRegistry]:
    with fault_registry() as running:
        yield running


def page(link: str, *tags: str) -> Fault:
    return together(body(json.dumps({"tags": tags}).encode()), header(Link=link))


def tags(registry: FaultRegistry) -> list[str]:
    return list_tags(reference(registry), access=patient(is_plain_http=True))


@pytest.mark.network
def test_all_pages_are_read_in_order(faulty: FaultRegistry) -> None:
    path = "/v2/team/disk/tags/list"
    faulty.script(
        "GET ",
        page(f'<{path}?n=2&last=b>; rel="next"', "a", "b"),
        page(f"<{faulty.origin}{path}?last=c>; rel=next", "c"),
        page("", "d"),
    )
    assert tags(faulty) == ["a", "b", "c", "d"]
    assert [request.path.partition("?")[2] for request in faulty.seen()] == ["n=1000", "n=2&last=b", "last=c"]


@pytest.mark.network
def test_a_next_page_elsewhere_is_refused(faulty: FaultRegistry) -> None:
    faulty.script("GET ", page('<http://169.254.169.254/latest>; rel="next"', "a"))
    with pytest.raises(AccessError) as caught:
        tags(faulty)
    assert caught.value.reason == "RedirectRefused"


@pytest.mark.network
@pytest.mark.parametrize("content", [b"[]", b'{"tags": 5}', b'{"tags": [5]}', b'{"tags": ["a\\nb"]}', b"{" * 3000])
def test_a_list_that_is_none_is_refused(faulty: FaultRegistry, content: bytes) -> None:
    faulty.always("GET ", body(content))
    with pytest.raises(ImageError):
        tags(faulty)


@pytest.mark.network
def test_a_list_of_nothing_is_empty_and_no_repository_is_not_found(faulty: FaultRegistry) -> None:
    faulty.script("GET ", body(b'{"tags": null}'), status(404))
    assert tags(faulty) == []
    with pytest.raises(NotFoundError):
        tags(faulty)


@pytest.mark.parametrize("link", ["<http://[>; rel=next", "<javascript:x>; rel=next", "<//..>; rel=next"])
def test_next_pages_that_are_no_addresses_are_refused(link: str) -> None:
    with pytest.raises(AccessError, match="no web address"):
        next_url("https://r/list", link)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("", None),
        ('</a>; rel="prev"', None),
        ('</p>; rel="prev", </n>; rel="next"', "https://r/n"),
        ('<?last=z>; title="x"; rel=next', "https://r/list?last=z"),
        ("<" * 9000, None),
    ],
)
def test_link_headers(link: str, expected: str | None) -> None:
    assert next_url("https://r/list", link) == expected
