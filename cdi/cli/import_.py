"""``cdi import``: a disk from anywhere into a local volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from imagekit.base.command import EXIT_CODES, output_option, print_result, progress_option
from imagekit.base.progress import Progress
from imagekit.base.units import format_duration, format_size, parse_size
from registrydisk.access import RegistryAccess
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from cdi.job import ImportResult


def _parse_size(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    return None if value is None else parse_size(value)


@click.command("import", epilog=EXIT_CODES)
@click.argument("source")
@click.argument("target", type=click.Path())
@click.option("--platform", default="", metavar="OS/ARCH", help="Which image of an index; this machine's by default.")
@click.option("--checksum", default="", metavar="ALGORITHM:HEX", help="What a file or download must hash to.")
@click.option("--size", "size_bytes", metavar="SIZE", callback=_parse_size, help="Grow the disk to this size, like 20G.")
@click.option("--overwrite", is_flag=True, help="Replace a disk that is there already.")
@click.option("--preallocate", is_flag=True, help="Reserve the whole disk in the file system.")
@click.option("--thin", is_flag=True, help="Accept a disk larger than the free space; it may run full later.")
@click.option("--resume/--no-resume", default=True, show_default=True, help="Go on where an earlier run ended.")
@click.option("--scratch", default="", metavar="DIR", type=click.Path(), help="Where temporary copies lie; beside the target.")
@access_options
@output_option
@progress_option
def import_(source: str, target: str, *, access: RegistryAccess, output: str, progress: Progress, **options: Any) -> None:
    """Import the disk at SOURCE into TARGET, as a raw disk, verified before it appears.

    SOURCE is docker://REF, oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, docker-daemon:REF, an http(s) URL, a
    file, or - for standard input; TARGET a directory (disk.img in it), a file, or a block device. qcow2, raw and ISO
    images are written as they come; vmdk, vdi, vhd and vhdx are converted by qemu-img. gz, xz, zst and bz2 are undone.

    A run that was killed or cut off is continued by the same command where the source can be read at any place: a
    file, or a server with ranges and a strong entity tag.

    \b
    Example:
      cdi import docker://quay.io/me/fedora:42 /mnt/volume
      cdi import https://example.org/disk.qcow2.xz /dev/vg/disk --checksum sha256:…
      xz -dc disk.raw.xz | cdi import - disk.img --size 20G
    """
    from cdi.job import ImportJob
    from cdi.pipeline import run_import  # codecs and HTTP, which --help must not pay for

    result = run_import(ImportJob(source=source, target=target, **options), access=access, progress=progress)
    print_result(result, output=output, text=lambda: _text(result))


def _text(result: ImportResult) -> str:
    grown = f", grown to {format_size(result.disk_size_bytes)}" if result.disk_size_bytes > result.virtual_size_bytes else ""
    resumed = f" ({format_size(result.resumed_bytes)} by an earlier run)" if result.resumed_bytes else ""
    lines = [
        f"{result.target}: {format_size(result.virtual_size_bytes)} from {result.format.value}{grown}, "
        f"{format_size(result.allocated_bytes)} allocated",
        f"fetched {format_size(result.fetched_bytes)}{resumed} in {format_duration(result.seconds)}, "
        f"{format_size(result.bytes_per_second)}/s of disk",
    ]
    facts = {"image": result.manifest_digest, "disk": result.payload_path, "checksum": result.checksum}
    return "\n".join(lines + [f"{name}: {value}" for name, value in facts.items() if value])
