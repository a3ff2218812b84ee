"""Which token services a registry may name."""

from __future__ import annotations

import pytest

from imagekit.base.errors import AccessError
from registrydisk.origin import Origin
from registrydisk.privacy import Privacy, address_check, privacy_of
from registrydisk.realm import check_realm, registrable_domain


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io/token"),
        ("https://quay.io", "https://quay.io/v2/auth"),
        ("https://ghcr.io", "https://ghcr.io/token"),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
        ("https://gitlab.example.com:5050", "https://gitlab.example.com/jwt/auth"),
        ("https://registry.connect.redhat.com", "https://sso.redhat.com/auth"),
        ("https://registry.redhat.io", "https://sso.redhat.com/auth"),
        ("https://registry.example.co.uk", "https://auth.example.co.uk/token"),
        ("https://mine.azurecr.io", "https://mine.azurecr.io/oauth2/token"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000/token"),
        ("http://127.0.0.1:5000", "https://127.0.0.1:5001/token"),
        ("https://10.0.0.5", "https://10.0.0.5:8443/token"),
    ],
)
def test_these_may(registry: str, realm: str) -> None:
    assert check_realm(realm, registry=Origin.of(registry)) == Origin.of(realm)


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://quay.io", "https://evil.example.com/token"),
        ("https://quay.io", "http://quay.io/v2/auth"),
        ("https://quay.io", "https://quay.io.evil.com/"),
        ("https://quay.io", "https://evilquay.io/"),
        ("https://mine.azurecr.io", "https://theirs.azurecr.io/token"),
        ("https://a.github.io", "https://b.github.io/token"),
        ("https://a.co.uk", "https://b.co.uk/token"),
        ("https://10.0.0.5", "https://10.0.0.6/token"),
        ("https://1.2.3.4", "https://9.9.3.4/token"),
        ("https://registry", "https://other/token"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/token"),
        ("http://127.0.0.1:5000", "http://localhost:5000/token"),
        ("https://quay.io", "https://me:secret@quay.io/"),
        ("https://quay.io", "https://"),
        ("https://quay.io", "quay.io/v2/auth"),
        ("https://quay.io", ""),
    ],
)
def test_these_may_not(registry: str, realm: str) -> None:
    with pytest.raises(AccessError) as caught:
        check_realm(realm, registry=Origin.of(registry))
    assert caught.value.reason == "RealmRefused"
    assert "secret" not in caught.value.message
    assert "--token-host" in caught.value.hint


@pytest.mark.parametrize("trusted", ["sso.corp.example:8443", "sso.corp.example"])
def test_the_user_may_trust_another(trusted: str) -> None:
    realm = "https://sso.corp.example:8443/token"
    assert check_realm(realm, registry=Origin.of("https://quay.io"), token_hosts=(trusted,)).host == "sso.corp.example"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", Privacy.PUBLIC),
        ("10.1.2.3", Privacy.PRIVATE),
        ("100.100.100.200", Privacy.PRIVATE),
        ("fd00:ec2::254", Privacy.PRIVATE),
        ("127.0.0.1", Privacy.LOOPBACK),
        ("0.0.0.0", Privacy.LOOPBACK),
        ("::ffff:127.0.0.1", Privacy.LOOPBACK),
        ("169.254.169.254", Privacy.LINK_LOCAL),
        ("::ffff:169.254.169.254", Privacy.LINK_LOCAL),
        ("fe80::1%eth0", Privacy.LINK_LOCAL),
    ],
)
def test_how_private_an_address_is(address: str, expected: Privacy) -> None:
    assert privacy_of(address) is expected


@pytest.mark.parametrize(
    ("home", "address", "is_allowed"),
    [
        ("93.184.216.34", "151.101.1.1", True),
        ("93.184.216.34", "10.0.0.1", False),
        ("93.184.216.34", "127.0.0.1", False),
        ("10.0.0.1", "10.0.0.2", True),
        ("10.0.0.1", "169.254.169.254", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "151.101.1.1", True),
    ],
)
def test_an_address_is_not_more_private_than_the_registrys(home: str, address: str, is_allowed: bool) -> None:
    inside = frozenset({Privacy.PRIVATE, Privacy.LOOPBACK, Privacy.LINK_LOCAL})
    check = address_check("registry.example.com", refused=inside, refusal=AccessError, resolve=lambda host: [home])
    if is_allowed:
        check(address)
        return
    with pytest.raises(AccessError, match=address):
        check(address)


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("quay.io", "quay.io"),
        ("a.b.quay.io", "quay.io"),
        ("a.b.example.co.uk", "example.co.uk"),
        ("x.y.amazonaws.com", "y.amazonaws.com"),
        ("localhost", "localhost"),
        ("10.0.0.5", "10.0.0.5"),
    ],
)
def test_what_one_owner_registered(host: str, domain: str) -> None:
    assert registrable_domain(host) == domain
