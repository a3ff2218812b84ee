"""Where credentials are found, and which win."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagekit.base.errors import UsageError
from registrydisk.access import Credential, RegistryAccess
from registrydisk.credentials import CredentialSearch, credential_files, encode_entry, find_credential
from tests.registrydisk.remote_access import CANARY


def entry(username: str, password: str = "secret") -> dict[str, str]:
    return encode_entry(Credential(username=username, password=password))


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def found_name(name: str, access: RegistryAccess) -> str | None:
    found = find_credential(name, access=access)
    return found.credential.username if found else None


def test_the_files_are_looked_at_in_order(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "DOCKER_CONFIG": str(tmp_path / "docker")}
    access = RegistryAccess(environment=environment)
    assert [str(path.relative_to(tmp_path)) for path in credential_files(access)] == [
        "run/containers/auth.json",
        ".config/containers/auth.json",
        "docker/config.json",
        ".dockercfg",
    ]
    for number, path in reversed(list(enumerate(credential_files(access)))):
        entries = {"quay.io": entry(f"user{number}")}
        write(path, entries if path.name == ".dockercfg" else {"auths": entries})
        assert found_name("quay.io/a", access) == f"user{number}"
    named = write(tmp_path / "named.json", {"auths": {"quay.io": entry("named")}})
    assert found_name("quay.io/a", RegistryAccess(environment={**environment, "REGISTRY_AUTH_FILE": str(named)})) == "named"
    assert found_name("quay.io/a", RegistryAccess(environment=environment, auth_file=named)) == "named"
    assert found_name("quay.io/a", RegistryAccess(environment=environment, credential=CANARY)) == CANARY.username


def test_without_a_home_there_are_no_files() -> None:
    assert credential_files(RegistryAccess()) == ()
    assert find_credential("quay.io/a", access=RegistryAccess()) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("quay.io/team/disk", "disk"),
        ("quay.io/team/other", "team"),
        ("quay.io/teams/disk", "registry"),
        ("quay.io.evil.com/team/disk", None),
    ],
)
def test_the_longest_match_wins(tmp_path: Path, name: str, expected: str | None) -> None:
    entries = {"quay.io": entry("registry"), "quay.io/team": entry("team"), "quay.io/team/disk": entry("disk")}
    path = write(tmp_path / "auth.json", {"auths": entries})
    assert found_name(name, RegistryAccess(auth_file=path)) == expected


@pytest.mark.parametrize(
    "key",
    ["docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io", "https://registry-1.docker.io/v2/"],
)
def test_docker_hub_has_many_names(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "auth.json", {"auths": {key: entry("hub")}})
    assert found_name("docker.io/library/fedora", RegistryAccess(auth_file=path)) == "hub"


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"identitytoken": "t"}, Credential(username="<token>", identity_token="t")),
        ({"auth": base64.b64encode(b"<token>:t").decode()}, Credential(username="<token>", identity_token="t")),
        ({"auth": base64.b64encode(b"me:a:b").decode()}, Credential(username="me", password="a:b")),
        ({"username": "me", "password": "p"}, Credential(username="me", password="p")),
        ({"auth": "!!!"}, None),
        ({"auth": base64.b64encode(b"\xff\xfe").decode()}, None),
        ({"auth": base64.b64encode(b"nocolon").decode()}, None),
        ({}, None),
        ("text", None),
    ],
)
def test_an_entry_is_understood_or_passed_over(tmp_path: Path, stored: Any, expected: Credential | None) -> None:
    path = write(tmp_path / "auth.json", {"auths": {"quay.io": stored}})
    found = find_credential("quay.io/a", access=RegistryAccess(auth_file=path))
    assert (found.credential if found else None) == expected


@given(
    st.text(min_size=1, alphabet=st.characters(exclude_characters=":\0", exclude_categories=["Cs"])),
    st.text(min_size=1, alphabet="ab:ü "),
)
def test_what_is_stored_is_found(username: str, password: str) -> None:
    from registrydisk.credentials import _decode_entry

    if username == "<token>":
        return
    assert _decode_entry(encode_entry(Credential(username=username, password=password))) == Credential(
        username=username, password=password
    )


@pytest.mark.parametrize(
    "content", ["{", "[]", '"text"', "null", '{"auths": []}', '{"auths": {"quay.io": null}}', '{"credHelpers": 5}', "{" * 9999]
)
def test_a_broken_file_is_passed_over_and_told(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "auth.json", content)
    search = CredentialSearch()
    assert find_credential("quay.io/a", access=RegistryAccess(auth_file=path), search=search) is None
    assert str(path) in search.tried[0]


def helper(directory: Path, name: str, answers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a credential helper that knows ``server: user`` and logs what it was asked."""
    directory.mkdir(exist_ok=True)
    program = directory / f"docker-credential-{name}"
    cases = "".join(f'  {server}) printf \'{{"Username":"{user}","Secret":"s"}}\';;\n' for server, user in answers.items())
    program.write_text(
        f'#!/bin/sh\nread -r server\necho "$1 $server" >>{directory}/log\n'
        f'case "$server" in\n{cases}  *) echo nothing; exit 1;;\nesac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return directory / "log"


@pytest.mark.process
def test_a_hosts_own_helper_comes_before_entries_and_the_general_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path / "bin", "own", {"quay.io": "own"}, monkeypatch)
    log = helper(tmp_path / "bin", "general", {"quay.io": "general", "https://index.docker.io/v1/": "hub"}, monkeypatch)
    document: dict[str, Any] = {"credHelpers": {"quay.io": "own"}, "credsStore": "general", "auths": {"quay.io": entry("entry")}}
    path = write(tmp_path / "config.json", document)
    access = RegistryAccess(auth_file=path)
    assert found_name("quay.io/team/disk", access) == "own"
    assert found_name("docker.io/library/fedora", access) == "hub"
    del document["credHelpers"], document["auths"]
    write(path, document)
    assert found_name("quay.io/team/disk", access) == "general"
    assert log.read_text().splitlines() == ["get quay.io", "get https://index.docker.io/v1/", "get quay.io"]


@pytest.mark.process
def test_a_helper_that_knows_nothing_or_is_missing_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path / "bin", "empty", {}, monkeypatch)
    for name in ("empty", "missing", "../evil", "a b", ""):
        path = write(tmp_path / "config.json", {"credHelpers": {"quay.io": name}, "credsStore": name})
        assert find_credential("quay.io/a", access=RegistryAccess(auth_file=path)) is None


def test_credentials_on_a_command_line_are_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        Credential.parse("onlythepassword")
    assert "onlythepassword" not in str(caught.value)
    assert Credential.parse("me:a:b") == Credential(username="me", password="a:b")
