"""Storing and forgetting credentials in an auth.json (containers-auth.json(5)), readable by its owner alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from imagekit.base.errors import AccessError, NotFoundError, UsageError
from imagekit.base.files import write_file
from imagekit.base.progress import SilentProgress
from registrydisk.access import Credential, RegistryAccess
from registrydisk.credentials import credential_files, credential_key, encode_entry, read_auth_file
from registrydisk.endpoint import Endpoint
from registrydisk.hosts import server_host
from registrydisk.http import HttpRequest
from registrydisk.manifest import canonical_json

_PRIVATE = 0o600
_PRIVATE_DIRECTORY = 0o700
_ANSWERED = frozenset({200, 404})  # some registries have no API root, but check credentials there all the same


def check_login(registry: str, credential: Credential, *, access: RegistryAccess) -> None:
    """Ask the registry whether it accepts ``credential``.

    Raises:
        AccessError: It does not.
        NetworkError: It cannot be asked.
    """
    own = replace(access, credential=credential)
    endpoint = Endpoint(server_host(registry, access=own), access=own, progress=SilentProgress())
    try:
        request = HttpRequest(method="GET", url=endpoint.url(), doing=f"log in to {registry}")
        endpoint.send(request, scopes=(), accepted=_ANSWERED).close()
    except AccessError as error:
        if error.reason in ("Unauthorized", "Forbidden"):
            error.hint = "check the name and the password; some registries want an access token instead of the password"
        raise
    finally:
        endpoint.close()


def store_login(registry: str, credential: Credential, *, access: RegistryAccess) -> Path:
    """Write ``credential`` into the auth file that is looked at first; return the file.

    Raises:
        UsageError: There is no place for it, or the file there is broken.
    """
    path = login_file(access)
    document = read_auth_file(path)
    entries = document.get("auths")
    document["auths"] = {**(entries if isinstance(entries, dict) else {}), credential_key(registry): encode_entry(credential)}
    path.parent.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_DIRECTORY)
    write_file(path, canonical_json(document) + b"\n", mode=_PRIVATE)
    return path


def forget_login(registry: str, *, access: RegistryAccess) -> Path:
    """Remove the entry for ``registry`` from the first file that has one; return the file.

    Raises:
        NotFoundError: No file has one.
    """
    key = credential_key(registry)
    for path in credential_files(access):
        document = read_auth_file(path)
        entries = document.get("auths")
        if isinstance(entries, dict) and key in entries:
            del entries[key]
            write_file(path, canonical_json(document) + b"\n", mode=_PRIVATE)
            return path
    looked = ", ".join(map(str, credential_files(access))) or "no file: HOME is not set"
    raise NotFoundError(f"there are no credentials for {registry}", hint=f"looked at {looked}")


def login_file(access: RegistryAccess) -> Path:
    """Return the file that new credentials go to.

    Raises:
        UsageError: Neither --authfile, REGISTRY_AUTH_FILE, XDG_RUNTIME_DIR nor HOME says where.
    """
    files = [path for path in credential_files(access) if path.name != ".dockercfg"]
    if not files:
        raise UsageError("there is no place for credentials", hint="name a file with --authfile")
    return files[0]
