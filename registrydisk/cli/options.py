"""The options that every command with a registry takes; they become one RegistryAccess."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from imagekit.base.environment import read_environment
from registrydisk.access import Credential, RegistryAccess


def access_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--creds``, ``--authfile``, ``--insecure``, ``--plain-http``, ``--cert-dir`` and ``--token-host``.

    The command receives them as the one parameter ``access``.
    """

    @functools.wraps(function)
    def command(
        *arguments: Any,
        creds: str | None,
        authfile: Path | None,
        insecure: bool,
        plain_http: bool,
        cert_dir: Path | None,
        token_host: tuple[str, ...],
        **options: Any,
    ) -> Any:
        access = RegistryAccess(
            credential=Credential.parse(creds) if creds else None,
            auth_file=authfile,
            is_insecure=insecure,
            is_plain_http=plain_http,
            certificate_directory=cert_dir,
            token_hosts=token_host,
            environment=read_environment(),
        )
        return function(*arguments, access=access, **options)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_FILE = click.Path(dir_okay=False, path_type=Path)
_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
_OPTIONS = (
    click.option("--creds", metavar="USER:PASSWORD", help="Credentials for the registry; `login` keeps them out of argv."),
    click.option("--authfile", type=_FILE, metavar="FILE", help="Read credentials from this file (containers-auth.json)."),
    click.option("--insecure", is_flag=True, help="Do not verify the registry's TLS certificate."),
    click.option("--plain-http", is_flag=True, help="Speak http instead of https."),
    click.option("--cert-dir", type=_DIRECTORY, metavar="DIR", help="Trust *.crt there; show *.cert with *.key."),
    click.option("--token-host", multiple=True, metavar="HOST", help="Let HOST, too, hand out the registry's tokens."),
)
