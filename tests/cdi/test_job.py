"""The documents of a worker: what is read back is what was written, and nonsense is refused with the field's name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdi.job import ImportFailure, ImportJob, ImportReport, ImportResult
from imagekit.base.errors import NoSpaceError, UsageError
from imagekit.image import Compression, DiskFormat

JOBS = st.builds(
    ImportJob,
    source=st.text(min_size=1),
    target=st.text(min_size=1),
    platform=st.text(),
    checksum=st.text(),
    size_bytes=st.none() | st.integers(min_value=0),
    overwrite=st.booleans(),
    preallocate=st.booleans(),
    thin=st.booleans(),
    resume=st.booleans(),
    scratch=st.text(),
)


@given(JOBS)
def test_a_job_survives_its_document(job: ImportJob) -> None:
    assert ImportJob.from_json(job.to_json()) == job


def test_a_job_needs_only_source_and_target() -> None:
    job = ImportJob.from_json(b'{"source": "-", "target": "disk.img"}')
    assert job == ImportJob(source="-", target="disk.img")
    assert job.resume


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "'source'"),
        (b'{"source": "x"}', "'target'"),
        (b'{"source": "", "target": "t"}', "'source'"),
        (b'{"source": "x", "target": 1}', "'target'"),
        (b'{"source": "x", "target": "t", "colour": 1}', "'colour'"),
        (b'{"source": "x", "target": "t", "sizeBytes": true}', "'size_bytes'"),
        (b'{"source": "x", "target": "t", "sizeBytes": "10"}', "'size_bytes'"),
        (b'{"source": "x", "target": "t", "overwrite": 1}', "'overwrite'"),
        (b'{"source": "x", "target": "t", "schemaVersion": 2}', "schema version"),
        (b'{"source": "x", "target": "t", "size_bytes": 1}', "'size_bytes'"),
        (b" " * (1 << 20) + b"{}", "larger"),
    ],
)
def test_a_broken_document_is_refused(document: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ImportJob.from_json(document)


def test_a_report_has_camel_case_keys_and_plain_values() -> None:
    result = ImportResult(
        source="a",
        target="b",
        format=DiskFormat.QCOW2,
        compression=Compression.GZIP,
        virtual_size_bytes=1,
        disk_size_bytes=2,
        fetched_bytes=3,
        written_bytes=4,
        allocated_bytes=5,
        resumed_bytes=6,
        seconds=0.5,
        bytes_per_second=8,
    )
    document = json.loads(ImportReport(result=result).to_json())
    assert document["schemaVersion"] == 1
    assert document["failure"] is None
    assert document["result"]["virtualSizeBytes"] == 1
    assert document["result"]["format"] == "qcow2"


def test_a_failure_is_told_in_the_words_of_the_error() -> None:
    failure = ImportFailure.of(NoSpaceError("too small", reason="TooLarge", hint="a larger one"))
    document = json.loads(ImportReport(failure=failure).to_json())
    assert document["failure"] == {
        "reason": "TooLarge",
        "message": "too small",
        "hint": "a larger one",
        "temporary": False,
        "exitCode": 7,
    }
