"""What runs in a worker pod: one document in, one document out, and the same pipeline as on a laptop."""

from __future__ import annotations

import os
from pathlib import Path

from cdi.job import LARGEST_DOCUMENT_BYTES, ImportFailure, ImportJob, ImportReport
from cdi.pipeline import run_import
from imagekit.base.errors import ImagekitError
from imagekit.base.files import open_regular, write_file
from imagekit.base.progress import Progress
from registrydisk.access import RegistryAccess


def run_worker(job_path: Path, report_path: Path, *, access: RegistryAccess, progress: Progress) -> ImportReport:
    """Run the job in ``job_path`` and leave its report in ``report_path``, also when it failed.

    Raises:
        ImagekitError: What the job failed with, after it was reported.
    """
    try:
        job = ImportJob.from_json(_read(job_path))
        report = ImportReport(result=run_import(job, access=access, progress=progress))
    except ImagekitError as error:
        write_file(report_path, ImportReport(failure=ImportFailure.of(error)).to_json())
        raise
    except Exception as error:  # whoever waits for the report must hear of our own mistakes too
        mistake = ImagekitError(f"{type(error).__name__}: {error}", reason="Internal")
        write_file(report_path, ImportReport(failure=ImportFailure.of(mistake)).to_json())
        raise
    write_file(report_path, report.to_json())
    return report


def _read(path: Path) -> bytes:
    with open(open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        return file.read(min(status.st_size, LARGEST_DOCUMENT_BYTES + 1))
