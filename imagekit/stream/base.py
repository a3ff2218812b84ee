"""The seams of the data path: where bytes come from, where a disk goes, and what decoding promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from imagekit.base.readers import ByteStream, RandomReader
from imagekit.base.units import MIB, TIB
from imagekit.image import DiskFormat

__all__ = ["ByteStream", "DecodeLimits", "DecodedDisk", "DiskWriter", "FromTheStart", "GrowingWriter", "Milestones", "RandomReader"]


class DiskWriter(Protocol):
    """A disk that is being filled; what was never written reads as zeros once ``finish`` returned.

    A decoder calls ``begin`` and ``write_at``; ``finish`` is for its caller, who may have a digest to check first: only
    then does a device get the first MiB that makes it look like a disk.
    """

    @property
    def capacity_bytes(self) -> int | None:
        """Largest virtual size that fits; None when only the file system limits it."""
        ...

    def begin(self, virtual_size_bytes: int) -> None:
        """Prepare a disk of this size; called once, before any write.

        Raises:
            NoSpaceError: It does not fit; nothing was written.
        """
        ...

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Take data for this place; runs of zeros may become holes. Order is free, overlaps are not."""
        ...

    def finish(self) -> None:
        """Make everything durable. Raises what any earlier write failed with."""
        ...


@runtime_checkable
class GrowingWriter(DiskWriter, Protocol):
    """A writer whose disk may become larger than ``begin`` said: for a stream of unknown length."""

    def grow(self, virtual_size_bytes: int) -> None:
        """Make the disk at least this large.

        Raises:
            NoSpaceError: It does not fit.
        """
        ...


class Milestones(Protocol):
    """Where an earlier run ended, and who hears how far this one is; both are offsets in the image file."""

    @property
    def start_bytes(self) -> int:
        """Everything in the file before this was written by an earlier run."""
        ...

    def is_due(self) -> bool:
        """Tell whether it is time to hear how far the run is; a decoder may have to wait for its threads to say it."""
        ...

    def reach(self, done_bytes: int) -> None:
        """Hear that everything in the file before ``done_bytes`` was handed to the writer."""
        ...


class FromTheStart:
    """The milestones of a run that nobody goes on from."""

    start_bytes = 0

    def is_due(self) -> bool:
        """Nobody asks."""
        return False

    def reach(self, done_bytes: int) -> None:
        """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """Bounds against hostile images; more than any of them is an ImageError.

    Attributes:
        virtual_size_bytes: Largest disk.
        pending_bytes: Data held in memory until the tables say where it belongs.
        table_bytes: Largest qcow2 L1 table.
        mapping_bytes: Memory for what qcow2's tables said of data that is still to come; 24 bytes for each fragment.
    """

    virtual_size_bytes: int = 64 * TIB
    pending_bytes: int = 32 * MIB
    table_bytes: int = 32 * MIB
    mapping_bytes: int = 192 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedDisk:
    """What a decoder wrote: ``written_bytes`` is guest data handed to the writer, zeros included."""

    format: DiskFormat
    virtual_size_bytes: int
    written_bytes: int
