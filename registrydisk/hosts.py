"""Which servers hold a repository: mirrors first, then the registry itself.

Read are containerd's ``certs.d/HOST/hosts.toml`` (containerd, docs/hosts.md) and the containers' registries.conf,
version 2 (containers-registries.conf(5)), with its drop-in directory. The user's own files win over the system's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from imagekit.base.errors import AccessError, UsageError
from imagekit.base.units import MIB
from registrydisk.access import RegistryAccess
from registrydisk.certificates import Trust
from registrydisk.origin import is_loopback_host
from registrydisk.reference import DOCKER_HUB, ImageReference

_HUB_SERVER = "registry-1.docker.io"
_LARGEST_FILE_BYTES = MIB
_EVERYTHING = frozenset({"pull", "resolve", "push"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryHost:
    """One server with one repository.

    Attributes:
        name: The registry's name as users write it; credentials are stored under it.
        authority: ``host[:port]`` to connect to.
        schemes: What to speak, in order of trying.
        prefix: Path before the repository.
        capabilities: What it is used for: ``pull`` (by digest), ``resolve`` (tags), ``push``.
        is_named: Whether it is the registry that the user named; ``--creds`` is for that one only.
    """

    name: str
    authority: str
    repository: str
    schemes: tuple[str, ...] = ("https",)
    prefix: str = "/v2"
    capabilities: frozenset[str] = _EVERYTHING
    trust: Trust | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_named: bool = False


def find_hosts(reference: ImageReference, *, access: RegistryAccess) -> tuple[RegistryHost, ...]:
    """Return the servers for ``reference`` in the order in which they are asked; the last one is the registry's own.

    Raises:
        AccessError: The registry is blocked by registries.conf, with reason Forbidden.
        UsageError: A configuration file is broken.
    """
    named = _named_host(reference, access=access)
    configured = _hosts_toml(reference, named, access=access)
    return configured if configured is not None else _registries_conf(reference, named, access=access)


def server_host(registry: str, *, access: RegistryAccess) -> RegistryHost:
    """Return the registry's own server without any repository, for logging in."""
    reference = ImageReference(registry=registry, repository="library/none")
    return _named_host(reference, access=access)


def _named_host(reference: ImageReference, *, access: RegistryAccess) -> RegistryHost:
    authority = _HUB_SERVER if reference.registry == DOCKER_HUB else reference.registry
    return RegistryHost(
        name=reference.registry,
        authority=authority,
        repository=reference.repository,
        schemes=_schemes(authority, is_plain_http=access.is_plain_http),
        is_named=True,
    )


def _schemes(authority: str, *, is_plain_http: bool) -> tuple[str, ...]:
    if is_plain_http:
        return ("http",)
    host = urlsplit(f"//{authority}").hostname or ""
    return ("https", "http") if is_loopback_host(host) else ("https",)


def _read_toml(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    try:
        return tomllib.loads(content.decode()) if len(content) <= _LARGEST_FILE_BYTES else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# --- containerd -------------------------------------------------------------------------------------------------------


def _hosts_toml(reference: ImageReference, named: RegistryHost, *, access: RegistryAccess) -> tuple[RegistryHost, ...] | None:
    base = access.system_directory / "containerd/certs.d"
    for directory in (base / reference.registry, base / "_default"):
        document = _read_toml(directory / "hosts.toml")
        if document is not None:
            mirrors = [
                _toml_host(url, _table(entry), directory=directory, named=named)
                for url, entry in _table(document.get("host")).items()
            ]
            server = document.get("server")
            own = named
            if isinstance(server, str) and server and directory.name != "_default":
                own = replace(
                    _toml_host(server, document, directory=directory, named=named),
                    is_named=True,
                    name=named.name,
                    capabilities=_EVERYTHING,
                )
            return (*mirrors, own)
    return None


def _toml_host(url: str, entry: dict[str, Any], *, directory: Path, named: RegistryHost) -> RegistryHost:
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{directory / 'hosts.toml'} names a host that is no address: {url!r}")
    path = parts.path.rstrip("/")
    prefix = path if entry.get("override_path") is True else (path if path.endswith("/v2") else f"{path}/v2")
    capabilities = entry.get("capabilities")
    allowed = frozenset(item for item in capabilities if isinstance(item, str)) if isinstance(capabilities, list) else _EVERYTHING
    return RegistryHost(
        name=parts.netloc.rpartition("@")[2],
        authority=parts.netloc.rpartition("@")[2],
        repository=named.repository,
        schemes=(parts.scheme,),
        prefix=prefix,
        capabilities=allowed,
        trust=_toml_trust(entry, directory),
        headers=_toml_headers(entry),
    )


def _toml_trust(entry: dict[str, Any], directory: Path) -> Trust | None:
    ca, client = entry.get("ca"), entry.get("client")
    authorities = tuple(directory / item for item in ([ca] if isinstance(ca, str) else ca or []) if isinstance(item, str))
    pair = client
    while isinstance(pair, list) and pair and isinstance(pair[0], list):
        pair = pair[0]
    names = [pair] if isinstance(pair, str) else [item for item in pair or [] if isinstance(item, str)]
    is_unverified = entry.get("skip_verify") is True
    if not authorities and not names and not is_unverified:
        return None
    return Trust(
        authorities=authorities,
        certificate=directory / names[0] if names else None,
        key=directory / names[1] if len(names) > 1 else None,
        is_unverified=is_unverified,
    )


def _toml_headers(entry: dict[str, Any]) -> dict[str, str]:
    headers = {}
    for name, value in _table(entry.get("header")).items():
        values = [value] if isinstance(value, str) else value
        if isinstance(values, list) and all(isinstance(item, str) for item in values):
            headers[name] = ", ".join(values)
    return headers


# --- registries.conf --------------------------------------------------------------------------------------------------


def _registries_conf(reference: ImageReference, named: RegistryHost, *, access: RegistryAccess) -> tuple[RegistryHost, ...]:
    matching = [entry for entry in _registry_tables(access) if _matches(_prefix(entry), reference)]
    if not matching:
        return (named,)
    entry = max(matching, key=lambda table: len(_prefix(table)))
    if entry.get("blocked") is True:
        raise AccessError(
            f"registries.conf blocks {_prefix(entry)}", reason="Forbidden", hint="the administrator forbids this registry"
        )
    mirrors = [_table(mirror) for mirror in entry.get("mirror", []) if isinstance(mirror, dict)]
    hosts = [host for mirror in mirrors if (host := _mirror(mirror, entry, reference)) is not None]
    return (*hosts, _relocated(entry, reference, named))


def _registry_tables(access: RegistryAccess) -> list[dict[str, Any]]:
    """Return the [[registry]] tables of all files; a later file's table replaces an earlier one with the same prefix."""
    tables: dict[str, dict[str, Any]] = {}
    for path in _registries_files(access):
        for table in (_read_toml(path) or {}).get("registry", []):
            if isinstance(table, dict) and _prefix(table):
                tables[_prefix(table)] = table
    return list(tables.values())


def _registries_files(access: RegistryAccess) -> list[Path]:
    environment, base = access.environment, access.system_directory / "containers"
    if environment.get("CONTAINERS_REGISTRIES_CONF"):
        return [Path(environment["CONTAINERS_REGISTRIES_CONF"])]
    main, drops = base / "registries.conf", [base / "registries.conf.d"]
    if environment.get("HOME"):
        own = Path(environment["HOME"]) / ".config/containers"
        main = own / "registries.conf" if (own / "registries.conf").is_file() else main
        drops.append(own / "registries.conf.d")
    return [main, *(path for drop in drops for path in sorted(drop.glob("*.conf")))]


def _prefix(table: Mapping[str, Any]) -> str:
    prefix = table.get("prefix") or table.get("location")
    return prefix if isinstance(prefix, str) else ""


def _matches(prefix: str, reference: ImageReference) -> bool:
    if prefix.startswith("*."):
        return reference.registry.partition(":")[0].endswith(prefix[1:])
    return f"{reference.name}/".startswith(f"{prefix}/")


def _rewritten(location: str, entry: Mapping[str, Any], reference: ImageReference) -> tuple[str, str]:
    """Return authority and repository when the entry's prefix is replaced by ``location``."""
    prefix = _prefix(entry)
    rest = reference.name.removeprefix(prefix) if not prefix.startswith("*.") else f"/{reference.repository}"
    authority, _, repository = f"{location.rstrip('/')}{rest}".partition("/")
    return authority, repository


def _mirror(mirror: Mapping[str, Any], entry: Mapping[str, Any], reference: ImageReference) -> RegistryHost | None:
    location = mirror.get("location")
    if not isinstance(location, str) or not location:
        return None
    what = mirror.get("pull-from-mirror") or ("digest-only" if entry.get("mirror-by-digest-only") is True else "all")
    if (what == "digest-only" and reference.digest is None) or (what == "tag-only" and reference.digest is not None):
        return None
    authority, repository = _rewritten(location, entry, reference)
    return RegistryHost(
        name=authority,
        authority=authority,
        repository=repository,
        capabilities=frozenset({"pull", "resolve"}),
        **_security(mirror, authority),
    )


def _relocated(entry: Mapping[str, Any], reference: ImageReference, named: RegistryHost) -> RegistryHost:
    location = entry.get("location")
    is_moved = isinstance(location, str) and location and location != _prefix(entry)
    if is_moved:
        authority, repository = _rewritten(str(location), entry, reference)
        # Its name changes too: credentials for the name that was written are not for the server it is moved to.
        named = replace(named, name=authority, authority=authority, repository=repository)
    security = _security(entry, named.authority)
    return replace(named, **security) if entry.get("insecure") is True or is_moved else named


def _security(table: Mapping[str, Any], authority: str) -> dict[str, Any]:
    if table.get("insecure") is True:
        return {"schemes": ("https", "http"), "trust": Trust(is_unverified=True)}
    return {"schemes": _schemes(authority, is_plain_http=False)}
