"""``registrydisk logout``."""

from __future__ import annotations

import click

from imagekit.base.command import EXIT_CODES
from registrydisk.access import RegistryAccess
from registrydisk.cli.options import access_options


@click.command("logout", epilog=EXIT_CODES)
@click.argument("registry")
@access_options
def logout(registry: str, access: RegistryAccess) -> None:
    """Forget the stored credentials for REGISTRY.

    \b
    Example:
      registrydisk logout quay.io
    """
    # Imported here: the HTTP libraries would make --help slow.
    from registrydisk.logins import forget_login
    from registrydisk.reference import parse_registry

    registry = parse_registry(registry)
    click.echo(f"removed the credentials for {registry} from {forget_login(registry, access=access)}")
