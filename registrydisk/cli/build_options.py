"""The options that say what an image shall be like; they become one BuildRequest without a disk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from imagekit.base.clock import SYSTEM_CLOCK
from imagekit.base.environment import read_environment
from imagekit.base.errors import UsageError

_MODES = ["auto", "store", "gzip", "zstd", "none"]


def build_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the image's options; the command receives them as the one parameter ``template``."""

    @functools.wraps(function)
    def command(  # noqa: PLR0913 - click passes every option by name
        *arguments: Any,
        disk_name: str,
        target_format: str | None,
        layer_mode: str,
        compression_level: int | None,
        created: str | None,
        instancetype: str,
        preference: str,
        label: tuple[str, ...],
        annotation: tuple[str, ...],
        env: tuple[str, ...],
        **options: Any,
    ) -> Any:
        # Imported here, so that --help does not pay for codecs and inspection.
        from imagekit.image import DiskFormat
        from registrydisk.build import BuildRequest
        from registrydisk.compressor import LayerMode
        from registrydisk.labels import checked_variables, instancetype_labels, parse_assignments

        environment = read_environment()
        labels = instancetype_labels(instancetype=instancetype, preference=preference)
        template = BuildRequest(
            disk="",
            disk_name=disk_name,
            target_format=DiskFormat(target_format) if target_format else None,
            mode=LayerMode(layer_mode),
            level=compression_level,
            created_seconds=_created_seconds(created or environment.get("SOURCE_DATE_EPOCH") or "0"),
            labels=labels | parse_assignments(label, option="--label"),
            annotations=parse_assignments(annotation, option="--annotation"),
            environment=checked_variables(parse_assignments(env, option="--env")),
            scratch=Path(environment.get("TMPDIR") or BuildRequest(disk="").scratch),
        )
        return function(*arguments, template=template, **options)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option("--disk-name", default="", metavar="NAME", help="Name of the file under /disk. [default: the disk's own]"),
    click.option(
        "--format", "target_format", type=click.Choice(["qcow2", "raw"]), help="Convert the disk first; needs a temporary copy."
    ),
    click.option(
        "--layer-mode", type=click.Choice(_MODES), default="auto", show_default=True, help="Compression; auto is store or gzip."
    ),
    click.option("--compression-level", type=int, metavar="N", help="0-3 for gzip (default 2), 1-19 for zstd (default 3)."),
    click.option("--created", metavar="SECONDS|now", help="The image's time. [default: $SOURCE_DATE_EPOCH, else 0]"),
    click.option("--instancetype", default="", metavar="[KIND/]NAME", help="Instance type that machines of this disk default to."),
    click.option("--preference", default="", metavar="[KIND/]NAME", help="Preference that machines of this disk default to."),
    click.option("--label", multiple=True, metavar="KEY=VALUE", help="Add a label; repeatable."),
    click.option("--annotation", multiple=True, metavar="KEY=VALUE", help="Add an annotation to the manifest; repeatable."),
    click.option("--env", multiple=True, metavar="KEY=VALUE", help="Add an environment variable; repeatable."),
)


def _created_seconds(text: str) -> int:
    if text == "now":
        return int(SYSTEM_CLOCK.now())
    # A year 9999 is the last that RFC 3339 can write, and the archive's field is as large.
    if text.isascii() and text.isdigit() and int(text) < 1 << 33:
        return int(text)
    raise UsageError(f"{text[:40]!r} is not a time", hint="write seconds since 1970, or now; SOURCE_DATE_EPOCH is read too")
