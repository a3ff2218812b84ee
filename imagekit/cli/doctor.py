"""``imagekit doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagekit.base.command import output_option, print_result
from imagekit.base.environment import read_environment

if TYPE_CHECKING:
    from imagekit.doctor import Diagnosis


@click.command("doctor")
@output_option
@click.pass_context
def doctor(context: click.Context, output: str) -> None:
    """Check this machine for what the toolkit needs, and name the Debian packages that are missing.

    Exit code 1 when something is missing that most commands need.

    \b
    Example:
      imagekit doctor
      imagekit doctor -o json
    """
    import platformdirs  # a command that only prints help does not need it

    from imagekit.doctor import Health, examine

    environment = read_environment()
    cache = Path(environment.get("IMAGEKIT_CACHE") or platformdirs.user_cache_dir("imagekit"))
    diagnoses = examine(environment, cache=cache)
    is_well = all(diagnosis.health is not Health.FAIL for diagnosis in diagnoses)
    print_result({"isWell": is_well, "checks": diagnoses}, output=output, text=lambda: "\n".join(map(_line, diagnoses)))
    context.exit(0 if is_well else 1)


def _line(diagnosis: Diagnosis) -> str:
    hint = f"  ({diagnosis.hint})" if diagnosis.hint else ""
    return f"{diagnosis.health.value:<5} {diagnosis.name:<15} {diagnosis.message}{hint}"
