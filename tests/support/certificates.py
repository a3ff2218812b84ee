"""Certificates for tests, made by the openssl program; the test needs the mark ``process``."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from imagekit.base.process import ProcessLimits, run
from tests.support.prerequisites import require_program

_LIMITS = ProcessLimits(timeout_seconds=60)
_SETTINGS = """
[ca]
default_ca = authority
[authority]
database = {database}
new_certs_dir = {directory}
unique_subject = no
rand_serial = yes
policy = any
[any]
commonName = supplied
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate with its key, both PEM."""

    certificate: Path
    key: Path

    def server_tls(self) -> ssl.SSLContext:
        """Return the settings of a server that shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def make_authority(directory: Path, name: str = "authority") -> Pair:
    """Return a new authority, with what RFC 5280 asks of one and Python 3.13 insists on."""
    extensions = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    return _request(directory, name, "-x509", "-days", "30", *extensions)


def make_certificate(
    directory: Path,
    name: str,
    *,
    authority: Pair,
    host: str = "IP:127.0.0.1",
    days: int = 30,
    digest: str = "sha256",
    usage: str = "serverAuth",
) -> Pair:
    """Return a certificate for ``host``; ``days=-1`` has expired."""
    request = _request(directory, name, suffix="csr")
    extensions = directory / f"{name}.ext"
    extensions.write_text(
        f"subjectAltName={host}\nextendedKeyUsage={usage}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    certificate = directory / f"{name}.pem"
    (directory / f"{name}.database").write_text("")
    settings = directory / f"{name}.cnf"
    settings.write_text(_SETTINGS.format(database=directory / f"{name}.database", directory=directory))
    now = datetime.now(UTC)
    _openssl(
        *("ca", "-batch", "-notext", "-config", str(settings), "-extfile", str(extensions)),
        *("-cert", str(authority.certificate), "-keyfile", str(authority.key), "-md", digest),
        *("-startdate", _timestamp(now - timedelta(days=3)), "-enddate", _timestamp(now + timedelta(days=days))),
        *("-in", str(request.certificate), "-out", str(certificate)),
    )
    return Pair(certificate=certificate, key=request.key)


def _timestamp(moment: datetime) -> str:
    return f"{moment:%Y%m%d%H%M%SZ}"


def _request(directory: Path, name: str, *options: str, suffix: str = "pem") -> Pair:
    pair = Pair(certificate=directory / f"{name}.{suffix}", key=directory / f"{name}.key")
    new_key = ["-newkey", "rsa:2048", "-nodes", "-keyout", str(pair.key)]
    _openssl("req", *new_key, "-subj", f"/CN={name}", *options, "-out", str(pair.certificate))
    return pair


def _openssl(*arguments: str) -> None:
    run([require_program("openssl"), *arguments], purpose="make a certificate for a test", limits=_LIMITS)
