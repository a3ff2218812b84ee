"""Logging in and out, by the library and by the commands."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imagekit.base.errors import AccessError, ImagekitError, NotFoundError, UsageError
from registrydisk.access import Credential, RegistryAccess
from registrydisk.cli.main import group
from registrydisk.credentials import find_credential
from registrydisk.logins import check_login, forget_login, login_file, store_login
from tests.registrydisk.remote_access import CANARY, patient
from tests.support.fault_registry import PASSWORD, USER, FaultRegistry, fault_registry


@pytest.fixture
def guarded() -> Iterator[FaultRegistry]:
    with fault_registry() as running:
        running.demand = "bearer"
        running.is_public = False
        yield running


def invoke(home: Path, *arguments: str, typed: str = "") -> Result:
    cleared = {name: None for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE")}
    return CliRunner().invoke(group, list(arguments), input=typed, env={**cleared, "HOME": str(home)})


@pytest.mark.network
@pytest.mark.parametrize("demand", ["basic", "bearer"])
def test_a_login_is_checked_stored_used_and_forgotten(guarded: FaultRegistry, tmp_path: Path, demand: str) -> None:
    guarded.demand = demand
    result = invoke(tmp_path, "login", guarded.host, "--username", USER, "--password-stdin", typed=f"{PASSWORD}\n")
    assert result.exit_code == 0, result.output
    path = tmp_path / ".config/containers/auth.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    access = RegistryAccess(environment={"HOME": str(tmp_path)})
    found = find_credential(f"{guarded.host}/team/disk", access=access)
    assert found is not None
    assert found.credential == CANARY
    assert invoke(tmp_path, "logout", guarded.host).exit_code == 0
    assert find_credential(f"{guarded.host}/team/disk", access=access) is None
    assert isinstance(invoke(tmp_path, "logout", guarded.host).exception, NotFoundError)
    assert PASSWORD not in result.output


@pytest.mark.network
def test_a_password_is_asked_for_without_being_shown(guarded: FaultRegistry, tmp_path: Path) -> None:
    result = invoke(tmp_path, "login", guarded.host, typed=f"{USER}\n{PASSWORD}\n")
    assert result.exit_code == 0, result.output
    assert PASSWORD not in result.output


@pytest.mark.network
def test_a_wrong_password_is_not_stored(guarded: FaultRegistry, tmp_path: Path) -> None:
    result = invoke(tmp_path, "login", guarded.host, "-u", USER, "--password-stdin", typed="wrong\n")
    assert isinstance(result.exception, AccessError)
    assert result.exception.reason == "Unauthorized"
    assert not (tmp_path / ".config").exists()


@pytest.mark.parametrize("arguments", [("--password-stdin",), ("--password-stdin", "-u", "me"), ("--creds", "nocolon")])
def test_a_login_without_name_or_password_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = invoke(tmp_path, "login", "quay.io", *arguments, typed="\n")
    assert isinstance(result.exception, UsageError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["login", "logout"])
@pytest.mark.parametrize("name", ["myregistry", "https://quay.io", "quay.io/team", "quay.io:443:1", ""])
def test_what_is_no_registry_is_not_docker_hub(tmp_path: Path, command: str, name: str) -> None:
    result = invoke(tmp_path, command, "--creds", "me:secret", name)
    assert isinstance(result.exception, UsageError)
    assert "is not a registry" in result.exception.message
    assert not list(tmp_path.iterdir())


def test_nobody_there_to_type_is_wrong_usage(tmp_path: Path) -> None:
    result = invoke(tmp_path, "login", "quay.io")
    assert isinstance(result.exception, UsageError)
    assert "--password-stdin" in result.exception.hint


def test_other_entries_are_kept_and_docker_hub_has_its_own_key(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {"quay.io": {"auth": "YTpi"}}, "credsStore": "x", "other": [1]}))
    access = RegistryAccess(auth_file=path)
    store_login("docker.io", CANARY, access=access)
    document = json.loads(path.read_text())
    assert set(document["auths"]) == {"quay.io", "https://index.docker.io/v1/"}
    assert (document["credsStore"], document["other"]) == ("x", [1])
    forget_login("docker.io", access=access)
    assert set(json.loads(path.read_text())["auths"]) == {"quay.io"}


def test_a_broken_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    path.write_text("precious {")
    with pytest.raises(UsageError):
        store_login("quay.io", CANARY, access=RegistryAccess(auth_file=path))
    assert path.read_text() == "precious {"


def test_without_a_place_it_says_so() -> None:
    with pytest.raises(UsageError):
        login_file(RegistryAccess())


@pytest.mark.network
def test_a_registry_that_lets_everybody_in_accepts_the_login() -> None:
    with fault_registry() as registry:
        check_login(registry.host, Credential(username="a", password="b"), access=patient())


@pytest.mark.network
def test_a_registry_that_is_none_is_no_login(guarded: FaultRegistry) -> None:
    from tests.support.fault_server import status

    guarded.always("GET ", status(500))
    with pytest.raises(ImagekitError) as caught:
        check_login(guarded.host, CANARY, access=patient())
    assert caught.value.exit_code == 6
