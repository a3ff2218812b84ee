"""Origins, and what is shown of an address."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.base.errors import AccessError, UsageError
from registrydisk.origin import Origin, printable_url, redirect_target


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Quay.IO/v2/", Origin("https", "quay.io", 443)),
        ("http://quay.io:5000", Origin("http", "quay.io", 5000)),
        ("https://user:pass@[::1]:8443/x", Origin("https", "::1", 8443)),
        ("http://quay.io:80", Origin("http", "quay.io", 80)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, expected: Origin) -> None:
    assert Origin.of(url) == expected
    assert Origin.of(str(expected)) == expected


@pytest.mark.parametrize("host", ["..", ".", "a..b", "a b", "a%2fb", "a\\b", "a\x00b", "a" * 254, "me@.."])
def test_what_is_no_host_has_no_origin(host: str) -> None:
    with pytest.raises(UsageError):
        Origin.of(f"https://{host}/v2/")


@pytest.mark.parametrize("host", ["bücher.example", "a_b-c.example.", "[fe80::1%eth0]", "[::ffff:10.0.0.1]", "1.2.3.4"])
def test_hosts_are_names_in_any_script_and_addresses(host: str) -> None:
    assert Origin.of(f"https://{host}/").host == host.strip("[]")


@given(st.text())
def test_every_text_is_an_origin_or_a_usage_error(text: str) -> None:
    for url in (text, f"http://{text}"):
        with suppress(UsageError):
            assert Origin.of(url).scheme in ("http", "https")


@given(st.text(alphabet="ab:@/?#[].", min_size=1))
def test_what_is_shown_has_no_query_and_no_password(text: str) -> None:
    shown = printable_url(f"https://me:canary@host/{text}?canary#canary")
    assert "canary" not in shown


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
    ],
)
def test_loopback_is_known_without_a_resolver(host: str, expected: bool) -> None:
    assert Origin("http", host, 80).is_loopback is expected


def test_a_relative_redirect_stays() -> None:
    assert redirect_target("https://a/b/c?d", "../e?f=g", hops=0) == "https://a/e?f=g"


@pytest.mark.parametrize(
    ("location", "hops", "reason"),
    [
        ("http://a/", 0, "RedirectRefused"),
        (None, 0, "RedirectRefused"),
        ("", 0, "RedirectRefused"),
        ("https://a/", 5, "TooManyRedirects"),
    ],
)
def test_some_redirects_are_refused(location: str | None, hops: int, reason: str) -> None:
    with pytest.raises(AccessError) as caught:
        redirect_target("https://a/b", location, hops=hops)
    assert caught.value.reason == reason
