"""``imagekit inspect``."""

from __future__ import annotations

from pathlib import Path

import click

from imagekit.base.command import output_option, print_result
from imagekit.base.errors import ImageError, VerificationError
from imagekit.cli.options import image_path


@click.command("inspect")
@click.argument("image", type=image_path())
@output_option
def inspect(image: Path, output: str) -> None:
    """Show what IMAGE is, and whether it is safe to open; exit code 8 when it is not.

    IMAGE is read and never run or mounted, and nothing that it names is opened. It may be inside gzip, xz, zstd or
    bzip2: it is decompressed on the way then, which takes as long as that takes, and nothing is written.

    \b
    Example:
      imagekit inspect fedora.qcow2
      imagekit inspect disk.img.xz -o json
    """
    # The codecs behind these take longer to import than --help may.
    from imagekit.cli.image_report import image_text, refused_document, refused_text, safe_document
    from imagekit.inspection import inspect_file, require_safe

    try:
        info = inspect_file(image)
    except (ImageError, VerificationError) as error:
        refusal = refused_text(image, error)
        print_result(refused_document(image, error), output=output, text=lambda: refusal)
        error.message = f"{image}: {error.message}"
        raise
    print_result(safe_document(image, info), output=output, text=lambda: image_text(image, info))
    require_safe(info, what=str(image))
