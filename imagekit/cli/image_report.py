"""An inspected image as a reader sees it: lines of text, or a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imagekit.base.command import camel_case, to_document
from imagekit.base.errors import ImagekitError
from imagekit.base.units import format_size
from imagekit.image import Compression, ImageInfo, Partition


def safe_document(path: Path, info: ImageInfo) -> dict[str, Any]:
    """Return what JSON and YAML print of an image that could be read."""
    details = {camel_case(name): value for name, value in info.details.items()}
    return {"path": str(path), "isSafe": info.is_safe, **to_document(info), "details": details}


def refused_document(path: Path, error: ImagekitError) -> dict[str, Any]:
    """Return what they print of one that could not: the same keys as far as they are known."""
    finding = {"rule": error.reason, "message": error.message}
    return {"path": str(path), "isSafe": False, "format": None, "findings": [finding]}


def image_text(path: Path, info: ImageInfo) -> str:
    """Return the report for a person."""
    rows = [("format", _format(info)), ("virtual size", _size(info.virtual_size_bytes)), ("file size", _size(info.file_size_bytes))]
    if info.compression is not Compression.NONE:
        rows.append(("compressed file", info.compression.value))
    if info.allocated_bytes is not None:
        rows.append(("allocated", _size(info.allocated_bytes)))
    if info.cluster_size_bytes is not None:
        rows.append(("cluster size", format_size(info.cluster_size_bytes)))
    if info.compressed_share is not None:
        rows.append(("compressed", f"{info.compressed_share:.1%} of the clusters"))
    if info.partition_table is not None:
        rows.append(("partition table", info.partition_table))
    rows += [(f"  partition {partition.number}", _partition(partition)) for partition in info.partitions]
    rows += [
        (name.replace("_", " "), "yes" if value is True else str(value))
        for name, value in info.details.items()
        if value is not False
    ]
    return "\n".join([str(path), *(f"  {name:<24}{value}" for name, value in rows), *_verdict(info)])


def refused_text(path: Path, error: ImagekitError) -> str:
    """Return the report of an image that could not be read."""
    return f"{path}\n  {'verdict':<24}unsafe\n    - {error.message}"


def _format(info: ImageInfo) -> str:
    return info.format.value if info.format.value == info.format.name.lower() else f"{info.format.value} ({info.format.name})"


def _size(size_bytes: int) -> str:
    return f"{format_size(size_bytes)} ({size_bytes} bytes)"


def _partition(partition: Partition) -> str:
    place = f"{format_size(partition.size_bytes)} at {format_size(partition.start_bytes)}, type {partition.kind}"
    return f"{place}, {partition.label!r}" if partition.label else place


def _verdict(info: ImageInfo) -> list[str]:
    if info.is_safe:
        return [f"  {'verdict':<24}safe"]
    return [f"  {'verdict':<24}unsafe", *(f"    - {finding.message} [{finding.rule}]" for finding in info.findings)]
