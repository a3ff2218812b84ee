"""Whom we trust over TLS, and how we show who we are: the system's store and certs.d directories.

Directories are those of docker (``/etc/docker/certs.d/HOST``) and containers (containers-certs.d(5)): ``*.crt`` is an
authority to trust besides the system's, ``NAME.cert`` with ``NAME.key`` is our own certificate.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imagekit.base.errors import AccessError
from registrydisk.access import RegistryAccess
from registrydisk.origin import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What is special about one origin's TLS."""

    authorities: tuple[Path, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    is_unverified: bool = False


def find_trust(origin: Origin, *, access: RegistryAccess, is_named: bool) -> Trust:
    """Return what the configured directories say of ``origin``.

    Args:
        is_named: Whether it is the host that the user named; only that one is met with ``--insecure`` and ``--cert-dir``.
    """
    authorities: list[Path] = []
    pair: tuple[Path, Path] | None = None
    for directory in _directories(origin, access=access, is_named=is_named):
        authorities += sorted(directory.glob("*.crt"))
        if pair is None:
            pair = _client_pair(directory)
    return Trust(
        authorities=tuple(authorities),
        certificate=pair[0] if pair else None,
        key=pair[1] if pair else None,
        is_unverified=access.is_insecure and is_named,
    )


def tls_context(trust: Trust) -> ssl.SSLContext:
    """Return the TLS settings for ``trust``; the files are read now, so that a later call sees rotated ones.

    Raises:
        AccessError: A certificate or key cannot be read, with reason TLSUntrusted.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # Debian's Python leaves it to openssl.cnf
    _add_fallback_authorities(context)
    for authority in trust.authorities:
        _load(context, authority)
    if trust.certificate is not None:
        try:
            context.load_cert_chain(trust.certificate, trust.key)
        except (OSError, ssl.SSLError) as error:
            raise _unreadable(trust.certificate) from error
    if trust.is_unverified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _directories(origin: Origin, *, access: RegistryAccess, is_named: bool) -> Iterator[Path]:
    if access.certificate_directory is not None and is_named:
        yield access.certificate_directory
    home = access.environment.get("HOME")
    bases = [access.system_directory / "docker/certs.d", access.system_directory / "containers/certs.d"]
    if home:
        bases.insert(0, Path(home) / ".config/containers/certs.d")
    for base in bases:
        # Both spellings are in use; a host name has no slash, so this never leaves the base.
        for name in dict.fromkeys((f"{origin.host}:{origin.port}", origin.authority)):
            if (directory := base / name).is_dir():
                yield directory


def _client_pair(directory: Path) -> tuple[Path, Path] | None:
    for certificate in sorted(directory.glob("*.cert")):
        key = certificate.with_suffix(".key")
        if not key.is_file():
            raise AccessError(f"{certificate} has no key beside it", reason="TLSUntrusted", hint=f"put the key into {key}")
        return certificate, key
    return None


def _add_fallback_authorities(context: ssl.SSLContext) -> None:
    paths = ssl.get_default_verify_paths()
    if not paths.cafile and not paths.capath:  # a system without ca-certificates
        import certifi

        context.load_verify_locations(certifi.where())


def _load(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as error:
        raise _unreadable(authority) from error


def _unreadable(path: Path) -> AccessError:
    return AccessError(
        f"cannot use the certificate {path}", reason="TLSUntrusted", hint="it must be PEM, and readable to this user"
    )
