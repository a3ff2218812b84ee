"""Which proxy is taken."""

from __future__ import annotations

import pytest

from registrydisk.origin import Origin
from registrydisk.proxies import proxy_for

QUAY = Origin("https", "quay.io", 443)
PLAIN = Origin("http", "registry.corp.example", 5000)


@pytest.mark.parametrize(
    ("origin", "environment", "expected"),
    [
        (QUAY, {}, ""),
        (QUAY, {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        (QUAY, {"https_proxy": "p:1", "HTTPS_PROXY": "http://other:1"}, "http://p:1"),
        (QUAY, {"HTTP_PROXY": "http://p:1"}, ""),
        (QUAY, {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        (PLAIN, {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        (PLAIN, {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, ""),
        (Origin("http", "127.0.0.1", 5000), {"HTTP_PROXY": "http://p:1"}, ""),
        (QUAY, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, ""),
        (QUAY, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "example.com, quay.io"}, ""),
        (QUAY, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "uay.io"}, "http://p:1"),
        (QUAY, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "quay.io:8443"}, "http://p:1"),
        (PLAIN, {"HTTP_PROXY": "http://p:1", "NO_PROXY": ".corp.example"}, ""),
        (PLAIN, {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*.corp.example:5000"}, ""),
        (Origin("http", "10.2.3.4", 80), {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, ""),
        (Origin("http", "11.2.3.4", 80), {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8,junk/99"}, "http://p:1"),
    ],
)
def test_the_proxy_for(origin: Origin, environment: dict[str, str], expected: str) -> None:
    assert proxy_for(origin, environment) == expected
