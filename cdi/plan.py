"""How to import: a pure decision from what was seen of the source and of the target.

Three routes. RANDOM reads the tables first and then the data in the order of the file, wherever the source can be read
at any place; it is the one that can be resumed. STREAM takes the bytes as they come, in one pass. CONVERT keeps the
image in a temporary file for qemu-img, because no decoder of ours knows the format.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cdi.job import ImportJob
from cdi.target import TargetKind, TargetObservation
from imagekit.base.errors import NoSpaceError
from imagekit.base.units import format_size
from imagekit.image import Compression, DiskFormat
from imagekit.stream import STREAMED_FORMATS

SECTOR_BYTES = 512


class Route(StrEnum):
    """A way from the source to the target."""

    RANDOM = "random"
    STREAM = "stream"
    CONVERT = "convert"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceObservation:
    """What a look at the source's first bytes, and at what it says of itself, told.

    Attributes:
        format: The one format of the image, inside its compression.
        compression: What is wrapped around it.
        size_bytes: Length as it is stored; None for a stream that does not say.
        virtual_size_bytes: Size of the disk, when the first bytes tell it.
        announced_size_bytes: Size of the disk as its publisher wrote it down.
        is_seekable: Whether it can be read at any place.
        is_local: Whether it is a file on this machine.
        identity: Names exactly this content; empty when nothing does.
    """

    format: DiskFormat
    compression: Compression
    size_bytes: int | None
    virtual_size_bytes: int | None
    announced_size_bytes: int | None
    is_seekable: bool
    is_local: bool
    identity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the pipeline does.

    Attributes:
        format: The format to decode, or what qemu-img is told.
        least_size_bytes: The target's disk is at least this large.
        capacity_bytes: No larger disk is written; None when anything may be tried.
        is_resumable: Whether a journal is kept.
        notes: What the user should know beforehand.
    """

    route: Route
    format: DiskFormat
    compression: Compression
    least_size_bytes: int
    capacity_bytes: int | None
    is_resumable: bool
    notes: tuple[str, ...] = ()


def make_plan(job: ImportJob, *, source: SourceObservation, target: TargetObservation) -> Plan:
    """Return how to import what was seen.

    Raises:
        NoSpaceError: The target, the size that was asked for, or the directory for temporary files is too small.
    """
    route = _route(job, source)
    least_size_bytes = rounded_up(job.size_bytes or 0)
    capacity_bytes = None if job.thin and target.kind is TargetKind.FILE else target.capacity_bytes
    _require_size(job, source)
    _require_capacity(source, target, least_size_bytes=least_size_bytes, capacity_bytes=capacity_bytes)
    if route is Route.CONVERT and not _is_read_in_place(job, source):
        _require_scratch(source, target)
    return Plan(
        route=route,
        format=source.format,
        compression=source.compression,
        least_size_bytes=least_size_bytes,
        capacity_bytes=capacity_bytes,
        is_resumable=route is Route.RANDOM and target.kind is TargetKind.FILE and bool(source.identity),
        notes=_notes(job, source) if route is Route.CONVERT else (),
    )


def rounded_up(size_bytes: int) -> int:
    """Return the size of a whole number of sectors; a guest sees no other."""
    return -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES


def _route(job: ImportJob, source: SourceObservation) -> Route:
    if source.format not in STREAMED_FORMATS:
        return Route.CONVERT
    # A checksum is over every byte in order, those included that no table names.
    if source.is_seekable and source.compression is Compression.NONE and not job.checksum:
        return Route.RANDOM
    return Route.STREAM


def _require_size(job: ImportJob, source: SourceObservation) -> None:
    if job.size_bytes is not None and source.virtual_size_bytes is not None and job.size_bytes < source.virtual_size_bytes:
        raise NoSpaceError(
            f"the disk has {_exactly(source.virtual_size_bytes)}, more than the {_exactly(job.size_bytes)} asked for",
            reason="TooLarge",
            hint="a disk is grown to --size but never cut: ask for at least its own size",
        )


def _require_capacity(
    source: SourceObservation, target: TargetObservation, *, least_size_bytes: int, capacity_bytes: int | None
) -> None:
    known = max(source.virtual_size_bytes or source.announced_size_bytes or 0, least_size_bytes)
    if capacity_bytes is None or known <= capacity_bytes:
        return
    thin = ", or use --thin to accept that it may run full later" if target.kind is TargetKind.FILE else ""
    raise NoSpaceError(
        f"{target.path} is too small: the disk needs {_exactly(known)}, it has {_exactly(capacity_bytes)}",
        reason="TooLarge",
        hint=f"choose a larger volume{thin}",
    )


def _require_scratch(source: SourceObservation, target: TargetObservation) -> None:
    if source.size_bytes is not None and source.size_bytes > target.scratch_free_bytes:
        raise NoSpaceError(
            f"a {source.format.name} image of {_exactly(source.size_bytes)} is kept while it is converted, "
            f"but there is only space for {_exactly(target.scratch_free_bytes)}",
            hint="name a larger directory with --scratch, or convert the image to qcow2 first",
        )


def _is_read_in_place(job: ImportJob, source: SourceObservation) -> bool:
    return source.is_local and source.compression is Compression.NONE and not job.checksum


def _notes(job: ImportJob, source: SourceObservation) -> tuple[str, ...]:
    where = "in place" if _is_read_in_place(job, source) else "from a temporary copy"
    return (f"{source.format.name} images are converted by qemu-img, {where}",)


def _exactly(size_bytes: int) -> str:
    """Two sizes that differ by a sector must not read the same."""
    return f"{format_size(size_bytes)} ({size_bytes} bytes)"
