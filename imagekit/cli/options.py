"""Options that several commands share, and their words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from imagekit.base.errors import UsageError
from imagekit.base.units import parse_size
from imagekit.image import DiskFormat

Function = TypeVar("Function", bound=Callable[..., Any])

_WORDS = {
    "raw": DiskFormat.RAW,
    "qcow2": DiskFormat.QCOW2,
    "vmdk": DiskFormat.VMDK,
    "vhd": DiskFormat.VHD,
    "vpc": DiskFormat.VHD,
    "vhdx": DiskFormat.VHDX,
    "vdi": DiskFormat.VDI,
    "iso": DiskFormat.ISO,
}
_SUFFIXES = {**{f".{word}": image_format for word, image_format in _WORDS.items()}, ".img": DiskFormat.RAW}


def disk_format(text: str) -> DiskFormat:
    """Return the disk format of this name; ``vhd`` is what qemu-img calls ``vpc``.

    Raises:
        UsageError: There is none.
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    import difflib  # only a slip of the pen needs it

    near = difflib.get_close_matches(text.lower(), _WORDS, n=1)
    raise UsageError(f"{text!r} is no disk format", hint=f"did you mean {near[0]!r}?" if near else f"one of {', '.join(_WORDS)}")


def target_format_option(function: Function) -> Function:
    """Add ``--to`` as the parameter ``target_format``."""
    return click.option(
        "--to", "target_format", type=disk_format, metavar="FORMAT", help="Format to write; told by the target's name when omitted."
    )(function)


def cluster_size_option(function: Function) -> Function:
    """Add ``--cluster-size`` as the parameter ``cluster_size``, in bytes."""
    return click.option("--cluster-size", type=parse_size, metavar="SIZE", help="Cluster size of a qcow2, like 64K.")(function)


def stated_format_option(
    name: str = "--format", *, parameter: str = "stated", short: str | None = "-f"
) -> Callable[[Function], Function]:
    """Add the option by which a user states what an image is."""
    names = [parameter, name, *([short] if short else [])]
    return click.option(
        *names,
        type=disk_format,
        metavar="FORMAT",
        help="What the image is; found out when omitted. raw is taken literally, whatever a guest wrote to the disk.",
    )


def target_format_of(target: Path, stated: DiskFormat | None) -> DiskFormat:
    """Return the format of a new file: the stated one, or the one that the file's name tells.

    Raises:
        UsageError: Neither tells it.
    """
    found = stated or _SUFFIXES.get(target.suffix.lower())
    if found is None:
        raise UsageError(f"the name {target.name} does not tell the format to write", hint="name it with --to, like --to qcow2")
    return found


def image_path() -> click.Path:
    """Return the parameter type of an image's path; whether it exists and may be read is told later, with its own exit code."""
    return click.Path(readable=False, path_type=Path)
