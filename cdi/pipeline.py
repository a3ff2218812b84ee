"""Runs an import: look, plan, fill, verify, publish; in this order, and nothing is visible before the last."""

from __future__ import annotations

import contextlib
from pathlib import Path

from cdi.fill import fill
from cdi.filling import Filling
from cdi.job import ImportJob, ImportResult
from cdi.meter import Meter
from cdi.plan import make_plan
from cdi.probe import probe
from cdi.sources.locate import open_job_source
from cdi.target import open_target
from imagekit.base.clock import SYSTEM_CLOCK, Clock
from imagekit.base.files import translate_os_error
from imagekit.base.progress import Progress
from imagekit.checksum import parse_checksum
from registrydisk.access import RegistryAccess


def run_import(job: ImportJob, *, access: RegistryAccess, progress: Progress, clock: Clock = SYSTEM_CLOCK) -> ImportResult:
    """Bring the disk of ``job.source`` into ``job.target``.

    Either the whole verified disk is there afterwards, or the target is as it was (a block device: without its first
    MiB), with at most a hidden partial file and its journal beside it, from which the same job goes on.

    Raises:
        UsageError: The job makes no sense, or the target is taken.
        NoSpaceError: The target is too small, or ran full.
        ImageError: The image is unsafe, unsupported, or no disk.
        VerificationError: What came is not what was promised.
        NetworkError: The source could not be reached, for longer than a retry helps.
    """
    try:
        return _run(job, access=access, progress=progress, clock=clock)
    except OSError as error:
        raise translate_os_error(error, doing=f"import into {job.target}") from error


def _run(job: ImportJob, *, access: RegistryAccess, progress: Progress, clock: Clock) -> ImportResult:
    started = clock.monotonic()
    checksum = parse_checksum(job.checksum) if job.checksum else None
    scratch = Path(job.scratch) if job.scratch else None
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(open_target(job.target, overwrite=job.overwrite, scratch=scratch))
        meter = Meter(stack.enter_context(progress.phase("import")))
        opened = stack.enter_context(open_job_source(job, access=access, progress=progress, on_bytes=meter.count))
        meter.set_total(opened.fetch_bytes)
        if opened.descriptor is not None:
            target.require_not(opened.descriptor)
        probed = probe(opened, checksum=checksum)
        plan = make_plan(job, source=probed.observation, target=target.observe())
        for note in plan.notes:
            progress.note(note)
        filling = Filling(plan=plan, job=job, source=probed, target=target, meter=meter, progress=progress, clock=clock)
        filled = fill(filling)
        seconds = clock.monotonic() - started
        return ImportResult(
            source=opened.name,
            target=str(target.path),
            format=plan.format,
            compression=plan.compression,
            virtual_size_bytes=filled.virtual_size_bytes,
            disk_size_bytes=filled.disk_size_bytes,
            fetched_bytes=meter.fetched_bytes,
            written_bytes=filled.written_bytes,
            allocated_bytes=target.allocated_bytes(),
            resumed_bytes=filled.resumed_bytes,
            seconds=round(seconds, 3),
            bytes_per_second=round(filled.written_bytes / max(seconds, 1e-3)),
            manifest_digest=opened.manifest_digest,
            payload_path=opened.payload_path,
            checksum=str(checksum or ""),
        )
