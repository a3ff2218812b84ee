"""Whom we trust over TLS (F22), with certificates made for the purpose."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagekit.base.errors import AccessError
from registrydisk.access import RegistryAccess
from registrydisk.certificates import find_trust
from registrydisk.origin import Origin
from registrydisk.remote import open_remote_source
from tests.registrydisk.remote_access import CANARY, patient, reference
from tests.support.certificates import Pair, make_authority, make_certificate
from tests.support.fault_registry import FaultRegistry, fault_registry
from tests.support.fault_server import fault_server, redirect

pytestmark = [pytest.mark.network, pytest.mark.process]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """One authority with what it issued."""

    directory: Path
    authority: Pair
    good: Pair


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    directory = tmp_path_factory.mktemp("keys")
    authority = make_authority(directory)
    return Keys(directory=directory, authority=authority, good=make_certificate(directory, "good", authority=authority))


@pytest.fixture
def secure(keys: Keys) -> Iterator[FaultRegistry]:
    with fault_registry(tls=keys.good.server_tls()) as running:
        running.put_image("team/disk", "v1", b"layer")
        yield running


def trusting(keys: Keys, registry: FaultRegistry, base: Path, folder: str = "containers") -> RegistryAccess:
    """Return an access whose system directory trusts the authority for ``registry``."""
    place = base / folder / "certs.d" / registry.host
    place.mkdir(parents=True)
    shutil.copy(keys.authority.certificate, place / "ca.crt")
    return patient(system_directory=base)


def pull(registry: FaultRegistry, access: RegistryAccess) -> None:
    with closing(open_remote_source(reference(registry), access=access)) as image:
        image.read_manifest()


def refusal(registry: FaultRegistry, access: RegistryAccess) -> AccessError:
    with pytest.raises(AccessError) as caught:
        pull(registry, access)
    assert caught.value.reason == "TLSUntrusted"
    assert registry.seen() == []
    return caught.value


def test_f22_an_unknown_authority_is_refused_and_the_place_for_it_named(secure: FaultRegistry) -> None:
    error = refusal(secure, patient(credential=CANARY))
    assert "unable to get local issuer certificate" in error.message
    assert f"certs.d/{secure.host}/ca.crt" in error.hint


@pytest.mark.parametrize("folder", ["docker", "containers"])
def test_an_authority_in_certs_d_is_trusted(keys: Keys, secure: FaultRegistry, tmp_path: Path, folder: str) -> None:
    pull(secure, trusting(keys, secure, tmp_path, folder))


def test_an_authority_in_the_users_certs_d_is_trusted(keys: Keys, secure: FaultRegistry, tmp_path: Path) -> None:
    place = tmp_path / ".config/containers/certs.d" / secure.host
    place.mkdir(parents=True)
    shutil.copy(keys.authority.certificate, place / "ca.crt")
    pull(secure, patient(environment={"HOME": str(tmp_path)}))


def test_a_directory_named_on_the_command_line_is_trusted_for_that_host_alone(
    keys: Keys, secure: FaultRegistry, tmp_path: Path
) -> None:
    shutil.copy(keys.authority.certificate, tmp_path / "ca.crt")
    access = patient(certificate_directory=tmp_path)
    pull(secure, access)
    elsewhere = Origin("https", "storage.example.com", 443)
    assert find_trust(elsewhere, access=access, is_named=False).authorities == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda keys: _issue(keys, "expired", days=-1), "certificate has expired"),
        (lambda keys: _issue(keys, "elsewhere", host="DNS:registry.example.com"), "IP address mismatch"),
        (lambda keys: _issue(keys, "sha1", digest="sha1"), "CA signature digest algorithm too weak"),
        (lambda keys: _issue(keys, "client", usage="clientAuth"), "unsuitable certificate purpose"),
    ],
    ids=["expired", "wrong-host", "sha1", "wrong-purpose"],
)
def test_f22_a_bad_certificate_is_refused_with_the_reason(
    keys: Keys, tmp_path: Path, change: Callable[[Keys], ssl.SSLContext], said: str
) -> None:
    with fault_registry(tls=change(keys)) as registry:
        error = refusal(registry, trusting(keys, registry, tmp_path))
    assert said.lower() in error.message.lower()


def test_f22_an_old_tls_is_refused(keys: Keys, tmp_path: Path) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(keys.good.certificate, keys.good.key)
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with fault_registry(tls=old) as registry:
        error = refusal(registry, trusting(keys, registry, tmp_path))
    assert "TLS 1.2" in error.hint


def test_f22_a_rotated_authority_is_picked_up_by_the_next_request(keys: Keys, tmp_path: Path) -> None:
    other = make_authority(tmp_path, "other")
    with fault_registry(tls=make_certificate(tmp_path, "rotated", authority=other).server_tls()) as registry:
        registry.put_image("team/disk", "v1", b"layer")
        access = trusting(keys, registry, tmp_path)
        with closing(open_remote_source(reference(registry), access=access)) as image:
            with pytest.raises(AccessError):
                image.read_manifest()
            shutil.copy(other.certificate, tmp_path / "containers/certs.d" / registry.host / "ca.crt")
            image.read_manifest()


def test_our_own_certificate_is_shown(keys: Keys, tmp_path: Path) -> None:
    demanding = keys.good.server_tls()
    demanding.verify_mode = ssl.CERT_REQUIRED
    demanding.load_verify_locations(keys.authority.certificate)
    ours = make_certificate(keys.directory, "ours", authority=keys.authority, usage="clientAuth")
    with fault_registry(tls=demanding) as registry:
        registry.put_image("team/disk", "v1", b"layer")
        access = trusting(keys, registry, tmp_path)
        place = tmp_path / "containers/certs.d" / registry.host
        shutil.copy(ours.certificate, place / "client.cert")
        with pytest.raises(AccessError) as caught:
            pull(registry, access)
        assert "client.key" in caught.value.hint
        shutil.copy(ours.key, place / "client.key")
        pull(registry, access)


def test_a_broken_certificate_file_is_named(secure: FaultRegistry, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("no PEM")
    assert "ca.crt" in refusal(secure, patient(certificate_directory=tmp_path)).message


def test_unverified_is_for_the_named_host_only(keys: Keys, secure: FaultRegistry) -> None:
    access = patient(is_insecure=True)
    pull(secure, access)
    assert not find_trust(Origin("https", "storage.example.com", 443), access=access, is_named=False).is_unverified


def test_f15_a_redirect_from_https_to_http_is_refused(keys: Keys, secure: FaultRegistry, tmp_path: Path) -> None:
    with fault_server() as plain:
        secure.always("GET .*/manifests/", redirect(f"{plain.origin}/manifest"))
        with pytest.raises(AccessError) as caught:
            pull(secure, trusting(keys, secure, tmp_path))
        assert caught.value.reason == "RedirectRefused"
        assert plain.seen() == []


def test_a_secure_loopback_registry_is_not_spoken_to_in_plain_http(secure: FaultRegistry) -> None:
    """What cannot be verified is an error, not a reason to give up TLS."""
    refusal(secure, patient(credential=CANARY))
    assert secure.seen() == []


def test_a_plain_loopback_registry_is_found_out_and_another_one_is_not_asked_without_tls() -> None:
    with fault_registry() as plain:
        plain.put_image("team/disk", "v1", b"layer")
        pull(plain, patient())
        assert plain.origin.startswith("http:")


def _issue(
    keys: Keys, name: str, *, host: str = "IP:127.0.0.1", days: int = 30, digest: str = "sha256", usage: str = "serverAuth"
) -> ssl.SSLContext:
    pair = make_certificate(keys.directory, name, authority=keys.authority, host=host, days=days, digest=digest, usage=usage)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")  # a server that shows a weak certificate all the same
    context.load_cert_chain(pair.certificate, pair.key)
    return context
