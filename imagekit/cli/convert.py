"""``imagekit convert``."""

from __future__ import annotations

from pathlib import Path

import click

from imagekit.base.command import output_option, print_result, progress_option
from imagekit.base.progress import Progress
from imagekit.base.units import format_size
from imagekit.cli.options import cluster_size_option, image_path, stated_format_option, target_format_of, target_format_option
from imagekit.image import DiskFormat


@click.command("convert")
@click.argument("source", type=image_path())
@click.argument("target", type=image_path())
@stated_format_option("--from", parameter="source_format", short=None)
@target_format_option
@click.option("--compress", type=click.Choice(["zlib", "zstd"]), help="Compress the clusters of a qcow2.")
@cluster_size_option
@click.option("--force", is_flag=True, help="Replace the target if it exists.")
@progress_option
@output_option
def convert(  # noqa: PLR0913 - click passes every option by name
    source: Path,
    target: Path,
    source_format: DiskFormat | None,
    target_format: DiskFormat | None,
    compress: str | None,
    cluster_size: int | None,
    force: bool,
    progress: Progress,
    output: str,
) -> None:
    """Write the disk in SOURCE as TARGET, in another format.

    SOURCE may be compressed with gzip, xz, zstd or bzip2. It has to be safe: one file that names no other. TARGET
    appears when it is complete.

    \b
    Example:
      imagekit convert fedora.qcow2 disk.img
      imagekit convert --compress zstd disk.img.xz disk.qcow2
    """
    from imagekit.convert import convert_identified  # the codecs behind it take longer to import than --help may
    from imagekit.disk import identify
    from imagekit.qemu_img import TargetOptions

    converted = convert_identified(
        source,
        target,
        info=identify(source, stated=source_format),
        target_format=target_format_of(target, target_format),
        options=TargetOptions(compression=compress, cluster_size_bytes=cluster_size),
        is_overwriting=force,
        progress=progress,
    )
    sizes = f"{format_size(converted.virtual_size_bytes)} disk in {format_size(converted.allocated_bytes)}"
    print_result(converted, output=output, text=lambda: f"{converted.path}: {converted.format.value}, {sizes}")
