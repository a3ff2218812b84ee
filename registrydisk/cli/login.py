"""``registrydisk login``."""

from __future__ import annotations

import sys

import click

from imagekit.base.command import EXIT_CODES
from imagekit.base.errors import UsageError
from registrydisk.access import Credential, RegistryAccess
from registrydisk.cli.options import access_options

_LONGEST_PASSWORD = 64 * 1024


@click.command("login", epilog=EXIT_CODES)
@click.argument("registry")
@click.option("-u", "--username", help="Name at the registry; asked for when omitted.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@access_options
def login(registry: str, username: str | None, password_stdin: bool, access: RegistryAccess) -> None:
    """Store credentials for REGISTRY after the registry accepted them.

    They go to the file that podman, skopeo and buildah read, too. A password given by --password-stdin or typed at
    the prompt never appears in the list of processes.

    \b
    Example:
      registrydisk login quay.io -u me --password-stdin < token.txt
    """
    # Imported here: the HTTP libraries would make --help slow.
    from registrydisk.logins import check_login, store_login
    from registrydisk.reference import parse_registry

    registry = parse_registry(registry)
    credential = access.credential or _ask(username, is_piped=password_stdin)
    check_login(registry, credential, access=access)
    path = store_login(registry, credential, access=access)
    click.echo(f"logged in to {registry}; the credentials are in {path}")


def _ask(username: str | None, *, is_piped: bool) -> Credential:
    if is_piped and not username:
        raise UsageError("--password-stdin needs a name", hint="add --username NAME")
    try:
        name = username or click.prompt("Username", err=True)
        password = sys.stdin.read(_LONGEST_PASSWORD).rstrip("\r\n") if is_piped else _prompt_password()
    except click.Abort:
        if sys.stdin.isatty():
            raise
        hint = "add --username NAME --password-stdin"
        raise UsageError("nobody is there to type a name and a password", hint=hint) from None
    if not password:
        raise UsageError("the password is empty")
    return Credential(username=name, password=password)


def _prompt_password() -> str:
    return str(click.prompt("Password", hide_input=True, err=True))
