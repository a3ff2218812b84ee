"""Mirrors and other servers that configuration files name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imagekit.base.errors import AccessError, UsageError
from registrydisk.hosts import RegistryHost, find_hosts
from registrydisk.reference import ImageReference
from tests.registrydisk.remote_access import patient

QUAY = ImageReference.parse("quay.io/team/disk:v1")


def hosts(reference: ImageReference, base: Path, **options: Any) -> list[RegistryHost]:
    return list(find_hosts(reference, access=patient(system_directory=base, **options)))


def write(base: Path, path: str, text: str) -> None:
    (base / path).parent.mkdir(parents=True, exist_ok=True)
    (base / path).write_text(text)


def addresses(found: list[RegistryHost]) -> list[str]:
    return [f"{host.schemes[0]}://{host.authority}{host.prefix}/{host.repository}" for host in found]


@pytest.mark.parametrize(
    ("name", "expected", "schemes"),
    [
        ("fedora", "https://registry-1.docker.io/v2/library/fedora", ("https",)),
        ("quay.io/a/b", "https://quay.io/v2/a/b", ("https",)),
        ("localhost:5000/a", "https://localhost:5000/v2/a", ("https", "http")),
        ("127.0.0.1:5000/a", "https://127.0.0.1:5000/v2/a", ("https", "http")),
        ("10.0.0.1:5000/a", "https://10.0.0.1:5000/v2/a", ("https",)),
    ],
)
def test_without_configuration_it_is_the_registry_alone(tmp_path: Path, name: str, expected: str, schemes: tuple[str, ...]) -> None:
    (host,) = hosts(ImageReference.parse(name), tmp_path)
    assert addresses([host]) == [expected]
    assert host.schemes == schemes
    assert host.is_named


def test_plain_http_is_tried_alone_when_it_is_asked_for(tmp_path: Path) -> None:
    (host,) = hosts(QUAY, tmp_path, is_plain_http=True)
    assert host.schemes == ("http",)


def test_hosts_toml_names_mirrors_in_order_then_the_server(tmp_path: Path) -> None:
    write(
        tmp_path,
        "containerd/certs.d/quay.io/hosts.toml",
        """
        server = "https://origin.example.com"
        ca = "origin.crt"
        [host."https://mirror.example.com"]
          capabilities = ["pull", "resolve"]
          ca = ["a.crt", "/b.crt"]
          client = [["c.cert", "c.key"]]
          [host."https://mirror.example.com".header]
            X-Mirror = ["yes", "indeed"]
        [host."http://cache:5000/v2/proxy"]
          override_path = true
          skip_verify = true
        """,
    )
    first, second, own = hosts(QUAY, tmp_path)
    assert addresses([first, second, own]) == [
        "https://mirror.example.com/v2/team/disk",
        "http://cache:5000/v2/proxy/team/disk",
        "https://origin.example.com/v2/team/disk",
    ]
    assert first.capabilities == {"pull", "resolve"}
    assert first.headers == {"X-Mirror": "yes, indeed"}
    assert first.trust is not None
    assert second.trust is not None
    assert own.trust is not None
    directory = tmp_path / "containerd/certs.d/quay.io"
    assert first.trust.authorities == (directory / "a.crt", Path("/b.crt"))
    assert (first.trust.certificate, first.trust.key) == (directory / "c.cert", directory / "c.key")
    assert second.trust.is_unverified
    assert own.trust.authorities == (directory / "origin.crt",)
    assert [host.is_named for host in (first, second, own)] == [False, False, True]
    assert "push" in own.capabilities


def test_hosts_toml_has_a_default(tmp_path: Path) -> None:
    write(tmp_path, "containerd/certs.d/_default/hosts.toml", 'server = "https://unused"\n[host."https://mirror"]\n')
    assert addresses(hosts(QUAY, tmp_path)) == ["https://mirror/v2/team/disk", "https://quay.io/v2/team/disk"]


@pytest.mark.parametrize("text", ["not toml [", '[host."ftp://x"]', "\xff"])
def test_a_broken_hosts_toml_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path, "containerd/certs.d/quay.io/hosts.toml", text)
    with pytest.raises(UsageError) as caught:
        hosts(QUAY, tmp_path)
    assert "hosts.toml" in caught.value.message


def test_registries_conf_takes_the_longest_prefix(tmp_path: Path) -> None:
    write(
        tmp_path,
        "containers/registries.conf",
        """
        unqualified-search-registries = ["docker.io"]
        [[registry]]
        location = "quay.io"
        [[registry.mirror]]
        location = "wide.example.com"
        [[registry]]
        prefix = "quay.io/team"
        location = "moved.example.com/ours"
        [[registry.mirror]]
        location = "near.example.com:5000/mirror"
        insecure = true
        """,
    )
    near, own = hosts(QUAY, tmp_path)
    assert addresses([near, own]) == ["https://near.example.com:5000/v2/mirror/disk", "https://moved.example.com/v2/ours/disk"]
    assert near.schemes == ("https", "http")
    assert own.name == "moved.example.com"
    other = hosts(ImageReference.parse("quay.io/teammates/disk"), tmp_path)
    assert addresses(other)[0] == "https://wide.example.com/v2/teammates/disk"
    assert len(hosts(ImageReference.parse("quay.io.example.com/a"), tmp_path)) == 1


@pytest.mark.parametrize(
    ("condition", "with_tag", "with_digest"),
    [('pull-from-mirror = "digest-only"', 1, 2), ('pull-from-mirror = "tag-only"', 2, 1), ('pull-from-mirror = "all"', 2, 2)],
)
def test_a_mirror_can_be_for_tags_or_digests(tmp_path: Path, condition: str, with_tag: int, with_digest: int) -> None:
    write(
        tmp_path,
        "containers/registries.conf",
        f'[[registry]]\nlocation="quay.io"\n[[registry.mirror]]\nlocation="m.example.com"\n{condition}',
    )
    assert len(hosts(QUAY, tmp_path)) == with_tag
    assert len(hosts(ImageReference.parse("quay.io/team/disk@sha256:" + "a" * 64), tmp_path)) == with_digest


def test_drop_ins_and_the_users_files_are_read(tmp_path: Path) -> None:
    write(tmp_path, "containers/registries.conf", '[[registry]]\nlocation="quay.io"\nblocked=true')
    with pytest.raises(AccessError):
        hosts(QUAY, tmp_path)
    write(tmp_path, "containers/registries.conf.d/10.conf", '[[registry]]\nlocation="quay.io"\nblocked=false')
    assert len(hosts(QUAY, tmp_path)) == 1
    write(tmp_path, "home/.config/containers/registries.conf", '[[registry]]\nprefix="*.corp.example"\nlocation="one.example"')
    (found,) = hosts(ImageReference.parse("a.corp.example/team/disk"), tmp_path, environment={"HOME": str(tmp_path / "home")})
    assert addresses([found]) == ["https://one.example/v2/team/disk"]
    write(tmp_path, "own.conf", '[[registry]]\nlocation="quay.io"\n[[registry.mirror]]\nlocation="own.example"')
    named = {"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "own.conf")}
    assert addresses(hosts(QUAY, tmp_path, environment=named))[0] == "https://own.example/v2/team/disk"
