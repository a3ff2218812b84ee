"""Linting what a place holds: one image, or each image of an index."""

from __future__ import annotations

from collections.abc import Iterator

from imagekit.base.errors import ImageError, VerificationError
from imagekit.base.progress import Progress
from registrydisk.image_scan import scan_image
from registrydisk.lint import LintFinding, LintLevel, LintReport, lint_image
from registrydisk.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Manifest, Platform, parse_index, parse_manifest
from registrydisk.selection import MOST_MANIFESTS, read_child, select_manifest
from registrydisk.store import ImageSource

_NO_PLATFORM = "unknown"
"""What builders write for attestations, which are no images."""


def lint_source(source: ImageSource, *, platform: Platform | None, is_quick: bool, progress: Progress) -> tuple[LintReport, ...]:
    """Return a report for the image of ``platform``, or for each image when it is None.

    Raises:
        NotFoundError: There is no image.
        ImageError: The top document is malformed, or the index is empty.
    """
    found = [select_manifest(source, platform=platform)] if platform else list(_images(source))
    if not found:
        raise ImageError("the index lists no image", reason="BadManifest")
    return tuple(_report(source, descriptor, manifest, is_quick=is_quick, progress=progress) for descriptor, manifest in found)


def _images(source: ImageSource) -> Iterator[tuple[Descriptor, Manifest]]:
    top = source.read_manifest()
    if not top.is_index:
        yield top.descriptor(), parse_manifest(top)
        return
    entries = parse_index(top).manifests
    if any(entry.media_type in INDEX_TYPES for entry in entries):
        raise ImageError("the index nests another one", reason="BadManifest", hint="choose an image with --platform")
    images = [entry for entry in entries if entry.media_type in MANIFEST_TYPES and not _is_attestation(entry)]
    for entry in images[:MOST_MANIFESTS]:
        yield entry, parse_manifest(read_child(source, entry))


def _is_attestation(entry: Descriptor) -> bool:
    return entry.platform is not None and entry.platform.os == _NO_PLATFORM


def _report(source: ImageSource, descriptor: Descriptor, manifest: Manifest, *, is_quick: bool, progress: Progress) -> LintReport:
    """A layer that cannot be read, or is not what its digest says, is the worst that there is to say of an image."""
    try:
        return lint_image(scan_image(source, descriptor, manifest, is_quick=is_quick, progress=progress))
    except (ImageError, VerificationError) as error:
        if error.temporary:
            raise
        finding = LintFinding(level=LintLevel.ERROR, reason=error.reason, message=error.message, hint=error.hint)
        return LintReport(platform=descriptor.platform, is_complete=False, findings=(finding,))


def format_reports(reports: tuple[LintReport, ...]) -> str:
    """Return the reports for a reader: a line for each finding, its hint beneath."""
    lines: list[str] = []
    for report in reports:
        lines.append(f"{report.platform or 'image'}: {_summary(report)}")
        for finding in report.findings:
            lines.append(f"  {finding.level.value:<8} {finding.reason}: {finding.message}")
            if finding.hint:
                lines.append(f"           hint: {finding.hint}")
    return "\n".join(lines)


def _summary(report: LintReport) -> str:
    counts = [sum(finding.level is level for finding in report.findings) for level in LintLevel]
    words = [f"{count} {level.value}{'s' if count > 1 else ''}" for count, level in zip(counts, LintLevel, strict=True) if count]
    return (", ".join(words) or "nothing to say") + ("" if report.is_complete else " (not read to its end)")
