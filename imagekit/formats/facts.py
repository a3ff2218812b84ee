"""What one format's parser says of an image."""

from __future__ import annotations

from dataclasses import dataclass, field

from imagekit.image import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatFacts:
    """The part of an ImageInfo that depends on the format; the fields mean the same there."""

    virtual_size_bytes: int
    allocated_bytes: int | None = None
    cluster_size_bytes: int | None = None
    compressed_share: float | None = None
    details: dict[str, str | int | bool] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
