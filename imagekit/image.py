"""What is known of a disk image: the words that every other module uses for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class DiskFormat(StrEnum):
    """A disk image format, by the name that qemu-img uses for it."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vpc"
    VHDX = "vhdx"
    VDI = "vdi"
    ISO = "iso"

    @property
    def driver(self) -> str:
        """The name for qemu-img's ``-f`` and ``-O``: an ISO is raw to it."""
        return "raw" if self is DiskFormat.ISO else self.value


class Compression(StrEnum):
    """A compression around a whole file."""

    NONE = "none"
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"
    BZIP2 = "bzip2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One entry of a partition table; ``kind`` is the GPT type GUID or the MBR type as ``0x83``."""

    number: int
    start_bytes: int
    size_bytes: int
    kind: str
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the inspector holds against an image: a rule's name (``backing-file``) and plain words."""

    rule: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """What the inspector says of one image.

    Attributes:
        format: The one format that matches; it is the ``-f`` of every later call.
        compression: What is wrapped around the image; the other fields speak of what is inside.
        file_size_bytes: Length of the file as it lies there.
        virtual_size_bytes: Size of the disk that a guest sees.
        allocated_bytes: Bytes of the guest's disk that the image has data for; None when unknown.
        cluster_size_bytes: Allocation unit; None where the format has none.
        compressed_share: Share of the allocated clusters that are compressed, 0.0-1.0; None when unknown.
        partition_table: ``gpt``, ``mbr`` or ``none``; None when the content cannot be seen without decoding.
        details: Facts of the format alone, as ``version`` or ``compression_type`` of qcow2.
        findings: Why the image is not safe; empty for a safe one.
    """

    format: DiskFormat
    compression: Compression = Compression.NONE
    file_size_bytes: int
    virtual_size_bytes: int
    allocated_bytes: int | None = None
    cluster_size_bytes: int | None = None
    compressed_share: float | None = None
    partition_table: str | None = None
    partitions: tuple[Partition, ...] = ()
    details: dict[str, str | int | bool] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def is_safe(self) -> bool:
        """Whether nothing was found against the image."""
        return not self.findings
