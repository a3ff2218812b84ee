"""Whether a qcow2 header is one that the decoders may follow."""

from __future__ import annotations

from imagekit.base.errors import ImageError
from imagekit.base.units import format_size
from imagekit.formats.qcow2 import Qcow2Header, header_findings, parse_header
from imagekit.stream.base import DecodeLimits

# Internal snapshots hide data, and who publishes an image should hear of it; but they do not change what the disk is.
_HARMLESS_RULES = frozenset({"snapshots"})


def read_safe_header(head: bytes, *, file_size_bytes: int | None, limits: DecodeLimits) -> Qcow2Header:
    """Return the header of the image that begins with ``head`` (its first cluster).

    Raises:
        ImageError: It cannot be read, reaches out of the file, is encrypted or damaged, or exceeds a limit.
    """
    header = parse_header(head)
    findings = [
        finding for finding in header_findings(header, file_size_bytes=file_size_bytes) if finding.rule not in _HARMLESS_RULES
    ]
    if findings:
        messages = "; ".join(finding.message for finding in findings)
        raise ImageError(f"the qcow2 image is not safe to read: {messages}", reason="UnsafeImage")
    if header.virtual_size_bytes > limits.virtual_size_bytes:
        size, most = format_size(header.virtual_size_bytes), format_size(limits.virtual_size_bytes)
        raise ImageError(f"the disk of {size} is larger than the limit of {most}", reason="TooLarge")
    if header.l1_entries * 8 > limits.table_bytes:
        raise ImageError(f"the qcow2 L1 table is larger than the limit of {format_size(limits.table_bytes)}", reason="UnsafeImage")
    return header
