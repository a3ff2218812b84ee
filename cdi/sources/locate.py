"""From what a user writes to the source that is meant: the one list of kinds.

Imports are local to each branch: an import from a file must not pay for HTTP.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from cdi.job import ImportJob
from cdi.sources.base import OnBytes, OpenedSource
from imagekit.base.errors import UsageError
from imagekit.base.progress import Progress
from registrydisk.access import RegistryAccess
from registrydisk.manifest import Platform
from registrydisk.reference import Location, Transport

_STANDARD_INPUT = "-"
_WEB_SCHEMES = ("http://", "https://")


def open_job_source(
    job: ImportJob, *, access: RegistryAccess, progress: Progress, on_bytes: OnBytes
) -> contextlib.AbstractContextManager[OpenedSource]:
    """Return a context that opens the source of a job.

    Args:
        on_bytes: Told of each piece that was read from the source, from any thread.

    Raises:
        UsageError: The job asks for something that its kind of source does not have.
    """
    scheme, colon, _ = job.source.partition(":")
    if colon and scheme in set(Transport):
        from cdi.sources.registry import open_registry_source

        if job.checksum:
            hint = "an image is verified by its digests: name it with @sha256:…"
            raise UsageError("a checksum is for a file or a download, not for an image", hint=hint)
        platform = Platform.parse(job.platform) if job.platform else None
        location = Location.parse(job.source)
        return open_registry_source(location, platform=platform, access=access, progress=progress, on_bytes=on_bytes)
    if job.platform:
        raise UsageError("a platform chooses an image, but the source is none", hint="leave --platform out")
    if job.source.startswith(_WEB_SCHEMES):
        from cdi.sources.http import open_http_source

        return open_http_source(job.source, access=access, progress=progress, on_bytes=on_bytes)
    if "://" in job.source:
        hint = "a source is docker://registry/name:tag, an http(s) URL, a file, or - for standard input"
        raise UsageError(f"nothing is imported from a {job.source.partition('://')[0][:40]}:// address", hint=hint)
    from cdi.sources.file import open_file_source, open_standard_input

    if job.source == _STANDARD_INPUT:
        return open_standard_input(on_bytes=on_bytes)
    return open_file_source(Path(job.source), on_bytes=on_bytes)
