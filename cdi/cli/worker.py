"""``cdi worker``: what runs in a pod."""

from __future__ import annotations

from pathlib import Path

import click

from imagekit.base.command import EXIT_CODES, progress_option
from imagekit.base.progress import Progress
from registrydisk.access import RegistryAccess
from registrydisk.cli.options import access_options


@click.command("worker", epilog=EXIT_CODES)
@click.argument("job", type=click.Path(path_type=Path))
@click.argument("report", type=click.Path(path_type=Path))
@access_options
@progress_option
def worker(job: Path, report: Path, *, access: RegistryAccess, progress: Progress) -> None:
    """Run the import JOB, a JSON document, and leave its REPORT, also when it failed.

    JOB has the keys source and target, and any of platform, checksum, sizeBytes, overwrite, preallocate, thin, resume
    and scratch, which mean what the options of `cdi import` mean. REPORT has either result or failure.

    \b
    Example:
      echo '{"source": "docker://quay.io/me/fedora:42", "target": "/data"}' > job.json
      cdi worker job.json report.json
    """
    from cdi.worker import run_worker  # codecs and HTTP, which --help must not pay for

    run_worker(job, report, access=access, progress=progress)
