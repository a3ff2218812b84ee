"""qemu-img, never left to guess: explicit formats, no chains, limits, typed answers."""

from imagekit.qemu_img.arguments import ImageFile, TargetOptions
from imagekit.qemu_img.call import (
    check,
    compare,
    convert,
    create,
    create_overlay,
    measure,
    read_facts,
    read_map,
    resize,
)
from imagekit.qemu_img.results import CheckReport, Comparison, DiskFacts, Extent, Measurement

__all__ = [
    "CheckReport",
    "Comparison",
    "DiskFacts",
    "Extent",
    "ImageFile",
    "Measurement",
    "TargetOptions",
    "check",
    "compare",
    "convert",
    "create",
    "create_overlay",
    "measure",
    "read_facts",
    "read_map",
    "resize",
]
