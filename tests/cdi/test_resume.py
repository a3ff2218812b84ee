"""An import that was interrupted goes on where it was, and never on another source's bytes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from cdi.job import ImportJob, ImportResult
from cdi.pipeline import run_import
from imagekit.base.errors import NoSpaceError
from imagekit.base.units import MIB
from registrydisk.access import RegistryAccess
from tests.cdi.interruptions import BreakingProgress, TickingClock
from tests.support.images import qcow2_image

RANDOM = random.Random(3)
DISK = b"".join(RANDOM.randbytes(MIB) if number % 3 else bytes(MIB) for number in range(60))
IMAGES = {
    "raw": DISK,
    "qcow2": qcow2_image(DISK, cluster_bits=16),
    "zlib": qcow2_image(b"".join(RANDOM.randbytes(600) + bytes(424) for _ in range(40 * 1024)), compression="zlib"),
}


def run(job: ImportJob, progress: BreakingProgress | None = None) -> ImportResult:
    return run_import(job, access=RegistryAccess(), progress=progress or BreakingProgress(), clock=TickingClock())


def names(volume: Path) -> list[str]:
    return sorted(os.listdir(volume))


@pytest.fixture(params=IMAGES)
def job(request: pytest.FixtureRequest, tmp_path: Path) -> ImportJob:
    source, volume = tmp_path / "source", tmp_path / "volume"
    source.write_bytes(IMAGES[request.param])
    volume.mkdir()
    return ImportJob(source=str(source), target=str(volume))


def interrupted(job: ImportJob, *, at_share: float, error: BaseException | None = None) -> None:
    """Break an import off after this share of its source was read."""
    size_bytes = Path(job.source).stat().st_size
    cause = error or KeyboardInterrupt()
    progress = BreakingProgress(int(size_bytes * at_share), cause)
    with pytest.raises(type(cause)):
        run(job, progress)
    assert any("goes on from there" in note for note in progress.notes)
    assert names(Path(job.target)) == [".disk.img.journal", ".disk.img.partial"]


def expected(job: ImportJob, tmp_path: Path) -> bytes:
    """Import without interruption, elsewhere."""
    run(replace(job, target=str(tmp_path / "whole")))
    return (tmp_path / "whole").read_bytes()


def test_an_interrupted_import_goes_on(job: ImportJob, tmp_path: Path) -> None:
    size_bytes = Path(job.source).stat().st_size
    interrupted(job, at_share=0.5)
    progress = BreakingProgress()
    result = run(job, progress)
    assert 0 < result.resumed_bytes == progress.resumed_bytes
    assert any(note.startswith("resuming at") for note in progress.notes)
    assert result.fetched_bytes <= size_bytes - result.resumed_bytes + 5 * MIB
    assert names(Path(job.target)) == ["disk.img"]
    assert (Path(job.target) / "disk.img").read_bytes() == expected(job, tmp_path)


def test_interrupted_again_and_again(job: ImportJob, tmp_path: Path) -> None:
    for share in (0.3, 0.25, 0.2):
        interrupted(job, at_share=share)
    result = run(job)
    assert result.resumed_bytes > 0.4 * Path(job.source).stat().st_size
    assert (Path(job.target) / "disk.img").read_bytes() == expected(job, tmp_path)


class KillingProgress(BreakingProgress):
    """Ends its own process when so many bytes were read, as ``kill -9`` would."""

    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.process
def test_a_killed_import_goes_on(job: ImportJob, tmp_path: Path) -> None:
    size_bytes = Path(job.source).stat().st_size
    for share in (0.4, 0.3):
        child = os.fork()
        if child == 0:
            try:
                run(job, KillingProgress(int(share * size_bytes)))
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        assert names(Path(job.target)) == [".disk.img.journal", ".disk.img.partial"]
    result = run(job)
    assert result.resumed_bytes > 0.4 * size_bytes
    assert result.fetched_bytes <= size_bytes - result.resumed_bytes + 5 * MIB
    assert names(Path(job.target)) == ["disk.img"]
    assert (Path(job.target) / "disk.img").read_bytes() == expected(job, tmp_path)


def test_a_full_disk_keeps_what_it_has(job: ImportJob) -> None:
    interrupted(job, at_share=0.5, error=NoSpaceError("full"))
    assert run(job).resumed_bytes > 0


def test_a_failure_that_would_come_again_keeps_nothing(job: ImportJob) -> None:
    with pytest.raises(ZeroDivisionError):
        run(job, BreakingProgress(15 * MIB, ZeroDivisionError()))
    assert names(Path(job.target)) == []


def test_another_source_begins_anew(job: ImportJob, tmp_path: Path) -> None:
    interrupted(job, at_share=0.5)
    source = Path(job.source)
    content = bytearray(source.read_bytes())
    content[-1] ^= 1
    source.write_bytes(content)
    result = run(job)
    assert result.resumed_bytes == 0
    assert (Path(job.target) / "disk.img").read_bytes() == expected(job, tmp_path)
    assert names(Path(job.target)) == ["disk.img"]


@pytest.mark.parametrize("change", [{"resume": False}, {"size_bytes": 200 * MIB}])
def test_another_job_begins_anew(job: ImportJob, change: dict[str, int]) -> None:
    interrupted(job, at_share=0.5)
    result = run(replace(job, **change))  # type: ignore[arg-type]  # by field name
    assert result.resumed_bytes == 0
    assert names(Path(job.target)) == ["disk.img"]


def test_another_partial_file_begins_anew(job: ImportJob, tmp_path: Path) -> None:
    interrupted(job, at_share=0.5)
    partial = Path(job.target) / ".disk.img.partial"
    content = bytes(partial.stat().st_size)
    partial.rename(tmp_path / "kept, so that its inode is not given away")
    partial.write_bytes(content)
    assert run(job).resumed_bytes == 0
    assert (Path(job.target) / "disk.img").read_bytes() == expected(job, tmp_path)


@pytest.mark.process
def test_the_journal_of_one_way_is_not_believed_of_what_another_way_wrote(job: ImportJob, tmp_path: Path) -> None:
    interrupted(job, at_share=0.6)
    checked = replace(job, checksum=hashlib.sha256(Path(job.source).read_bytes()).hexdigest())
    child = os.fork()
    if child == 0:
        try:
            run(checked, KillingProgress(5 * MIB))  # a stream, which keeps no journal
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert run(job).resumed_bytes == 0
    assert names(Path(job.target)) == ["disk.img"]
    assert (Path(job.target) / "disk.img").read_bytes() == expected(job, tmp_path)


def test_a_stream_begins_anew_and_leaves_nothing(job: ImportJob, tmp_path: Path) -> None:
    checked = replace(job, checksum=hashlib.sha256(Path(job.source).read_bytes()).hexdigest())
    with pytest.raises(KeyboardInterrupt):
        run(checked, BreakingProgress(10 * MIB, KeyboardInterrupt()))
    assert names(Path(job.target)) == []
    interrupted(job, at_share=0.5)  # a journal that the stream cannot use
    assert run(checked).resumed_bytes == 0
    assert names(Path(job.target)) == ["disk.img"]
    assert (Path(job.target) / "disk.img").read_bytes() == expected(job, tmp_path)
