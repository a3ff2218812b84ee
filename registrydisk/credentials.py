"""Stored credentials: which files and helper programs are asked, in which order, and which entry wins.

The order is that of containers-auth.json(5), then docker's files; in a file the longest match wins
(``quay.io/team/disk`` before ``quay.io``), a host's own helper before the general one, and a helper before an entry.
"""

from __future__ import annotations

import base64
import binascii
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagekit.base.errors import UsageError
from imagekit.base.units import MIB
from registrydisk.access import Credential, RegistryAccess
from registrydisk.reference import DOCKER_HUB

_LARGEST_FILE_BYTES = MIB
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_KEYS = (_DOCKER_HUB_KEY, "index.docker.io", "registry-1.docker.io")
_TOKEN_USER = "<token>"  # noqa: S105  # docker's name for "the password is an identity token"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCredential:
    """A credential and where it was found; ``is_explicit`` when the user gave it with the command."""

    credential: Credential
    place: str
    is_explicit: bool = False


@dataclass(slots=True, kw_only=True)
class CredentialSearch:
    """One search: what was looked at, told when nothing helps."""

    tried: list[str] = field(default_factory=list)


def find_credential(name: str, *, access: RegistryAccess, search: CredentialSearch | None = None) -> FoundCredential | None:
    """Return the credential for ``registry/repository``, or None.

    A helper program that is missing or fails never raises: the image may be public. What was tried is in ``search``.
    """
    search = search or CredentialSearch()
    if access.credential is not None:
        return FoundCredential(credential=access.credential, place="the command line", is_explicit=True)
    for path in credential_files(access):
        if (document := _read_document(path, search)) is not None:
            found = _find_in_document(document, name, path=path, access=access, search=search)
            if found is not None:
                return found
    return None


def credential_files(access: RegistryAccess) -> tuple[Path, ...]:
    """Return the files in which credentials are looked for, in order; they need not exist."""
    environment = access.environment
    if access.auth_file is not None:
        return (access.auth_file,)
    if environment.get("REGISTRY_AUTH_FILE"):
        return (Path(environment["REGISTRY_AUTH_FILE"]),)
    home = Path(environment["HOME"]) if environment.get("HOME") else None
    paths = []
    if environment.get("XDG_RUNTIME_DIR"):
        paths.append(Path(environment["XDG_RUNTIME_DIR"]) / "containers/auth.json")
    configuration = environment.get("XDG_CONFIG_HOME") or (str(home / ".config") if home else "")
    if configuration:
        paths.append(Path(configuration) / "containers/auth.json")
    docker = environment.get("DOCKER_CONFIG") or (str(home / ".docker") if home else "")
    if docker:
        paths.append(Path(docker) / "config.json")
    if home:
        paths.append(home / ".dockercfg")
    return tuple(paths)


def read_auth_file(path: Path) -> dict[str, Any]:
    """Return the JSON object in a credentials file; an absent or empty file is an empty one.

    Raises:
        UsageError: It cannot be read as one; its content is not repeated.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"cannot read the credentials in {path}: {error.strerror}") from error
    if not content.strip():
        return {}
    try:
        document = json.loads(content) if len(content) <= _LARGEST_FILE_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UsageError(f"{path} is no credentials file", hint="it should be a JSON object as `registrydisk login` writes it")
    return document


def credential_key(registry: str) -> str:
    """Return the key under which credentials for ``registry`` are stored."""
    return _DOCKER_HUB_KEY if registry == DOCKER_HUB else registry


def encode_entry(credential: Credential) -> dict[str, str]:
    """Return a credentials file's entry for ``credential``."""
    entry = {"auth": base64.b64encode(f"{credential.username}:{credential.password}".encode()).decode()}
    return {**entry, "identitytoken": credential.identity_token} if credential.identity_token else entry


def _read_document(path: Path, search: CredentialSearch) -> dict[str, Any] | None:
    try:
        document = read_auth_file(path)
    except UsageError as error:
        search.tried.append(error.message)
        return None
    search.tried.append(f"{path} ({'no entry' if document else 'absent'})")
    # ~/.dockercfg is the map of entries itself.
    return {"auths": document} if path.name == ".dockercfg" else document


def _find_in_document(
    document: dict[str, Any], name: str, *, path: Path, access: RegistryAccess, search: CredentialSearch
) -> FoundCredential | None:
    entries = _normalised(document.get("auths"))
    helpers = _mapping(document.get("credHelpers"))
    general = document.get("credsStore")
    for key in _candidates(name):
        for stored in _stored_names(key):
            if isinstance(helper := helpers.get(stored), str) and (credential := _ask(helper, key, access=access, search=search)):
                return FoundCredential(credential=credential, place=f"the helper {helper}")
        if credential := _decode_entry(entries.get(key)):
            return FoundCredential(credential=credential, place=str(path))
    registry = name.partition("/")[0]
    if isinstance(general, str) and general and (credential := _ask(general, registry, access=access, search=search)):
        return FoundCredential(credential=credential, place=f"the helper {general}")
    return None


def _candidates(name: str) -> Iterator[str]:
    """Yield ``a/b/c``, ``a/b``, ``a``."""
    while name:
        yield name
        name = name.rpartition("/")[0]


def _stored_names(key: str) -> tuple[str, ...]:
    return (key, *_DOCKER_HUB_KEYS) if key == DOCKER_HUB else (key,)


def _normalised(auths: object) -> dict[str, object]:
    """Return the entries by plain name: some tools store ``https://registry/v1/``."""
    entries: dict[str, object] = {}
    for key, entry in _mapping(auths).items():
        plain = key.removeprefix("https://").removeprefix("http://").rstrip("/")
        for suffix in ("/v1", "/v2"):
            plain = plain.removesuffix(suffix)
        plain = DOCKER_HUB if plain in ("index.docker.io", "registry-1.docker.io") else plain
        if plain == key:
            entries[plain] = entry
        else:
            entries.setdefault(plain, entry)
    return entries


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _decode_entry(entry: object) -> Credential | None:
    fields = _mapping(entry)
    token = fields.get("identitytoken")
    if isinstance(token, str) and token:
        return Credential(username=_TOKEN_USER, identity_token=token)
    encoded = fields.get("auth")
    if isinstance(encoded, str) and encoded:
        try:
            username, _, password = base64.b64decode(encoded).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        return _credential(username, password.rstrip("\0"))
    name, secret = fields.get("username"), fields.get("password")
    return _credential(name, secret) if isinstance(name, str) and isinstance(secret, str) else None


def _credential(username: str, password: str) -> Credential | None:
    if username == _TOKEN_USER:
        return Credential(username=username, identity_token=password)
    return Credential(username=username, password=password) if username and password else None


def _ask(helper: str, key: str, *, access: RegistryAccess, search: CredentialSearch) -> Credential | None:
    """Ask docker-credential-``helper``; docker's library speaks its protocol."""
    from docker.credentials import Store, StoreError  # slow to import, and seldom needed

    server, program = credential_key(key), f"docker-credential-{helper}"
    if not helper.replace("-", "").replace("_", "").replace(".", "").isalnum() or "/" in helper:
        search.tried.append("a helper whose name is no program's name")
        return None
    if shutil.which(program) is None:
        search.tried.append(f"the helper {program} (not installed)")
        return None
    try:
        store = Store(helper, environment=dict(access.environment))
        answer = store.get(server)  # type: ignore[no-untyped-call]  # docker's stubs leave it out
    except (StoreError, OSError, ValueError, KeyError, TypeError):
        search.tried.append(f"the helper {program} (it knows nothing of {server})")
        return None
    username, secret = answer.get("Username"), answer.get("Secret")
    return _credential(username, secret) if isinstance(username, str) and isinstance(secret, str) else None
