"""Imports from a server that breaks in every way: the disk arrives whole, with little sent twice, or nothing does."""

from __future__ import annotations

import gzip
import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cdi.job import ImportJob, ImportResult
from cdi.pipeline import run_import
from imagekit.base.errors import ImagekitError, NoSpaceError, NotFoundError, VerificationError
from imagekit.base.retry import RetryPolicy
from imagekit.base.units import MIB
from registrydisk.access import HttpLimits, RegistryAccess
from tests.cdi.interruptions import BreakingProgress, TickingClock
from tests.cdi.layouts import layer, write_layout
from tests.support.fault_registry import fault_registry
from tests.support.fault_server import (
    Fault,
    FaultServer,
    drop_after,
    fault_server,
    flip,
    header,
    ignore_range,
    no_length,
    none,
    reset_after,
    status,
    together,
)
from tests.support.images import poke_qcow2, qcow2_image

pytestmark = pytest.mark.network

RANDOM = random.Random(5)
DISK = b"".join(RANDOM.randbytes(MIB) if number % 3 else bytes(MIB) for number in range(30))
IMAGES = {"raw": DISK, "qcow2": qcow2_image(DISK), "raw.gz": gzip.compress(DISK, 1)}
ACCESS = RegistryAccess(
    is_plain_http=True, limits=HttpLimits(retry=RetryPolicy(first_delay_seconds=0.001, longest_delay_seconds=0.001))
)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with fault_server() as running:
        yield running


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.mkdir()
    return path


@pytest.fixture(params=IMAGES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def job_for(server: FaultServer, volume: Path, kind: str) -> ImportJob:
    server.put_file(f"/{kind}", IMAGES[kind])
    return ImportJob(source=f"{server.origin}/{kind}", target=str(volume))


def run(job: ImportJob, progress: BreakingProgress | None = None) -> ImportResult:
    return run_import(job, access=ACCESS, progress=progress or BreakingProgress(), clock=TickingClock())


def assert_arrived(volume: Path) -> None:
    assert (volume / "disk.img").read_bytes() == DISK
    assert os.listdir(volume) == ["disk.img"]


def test_few_requests_bring_it(server: FaultServer, volume: Path, kind: str) -> None:
    result = run(job_for(server, volume, kind))
    assert_arrived(volume)
    assert len(server.seen()) <= 5
    assert result.fetched_bytes <= 1.05 * len(IMAGES[kind]) + MIB
    assert result.source == f"{server.origin}/{kind}"


FAULTS: dict[str, list[Fault]] = {
    "drops": [drop_after(9 * MIB), drop_after(5 * MIB), drop_after(0)],
    "resets": [none, reset_after(7 * MIB), reset_after(100)],
    "errors first": [status(503), status(429, Retry_After="0"), status(502)],
    "errors between": [drop_after(8 * MIB), status(500), status(503)],
}


@pytest.mark.parametrize("name", FAULTS)
def test_broken_connections_are_resumed(server: FaultServer, volume: Path, kind: str, name: str) -> None:
    job = job_for(server, volume, kind)
    server.script("GET ", *FAULTS[name])
    result = run(job)
    assert_arrived(volume)
    assert result.fetched_bytes <= 1.05 * len(IMAGES[kind]) + MIB


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(ignore_range(), id="no ranges"),
        pytest.param(no_length(), id="no length"),
        pytest.param(together(ignore_range(), no_length()), id="neither"),
        pytest.param(header(ETag='W/"weak"'), id="weak tag"),
        pytest.param(header(ETag=""), id="no tag"),
        pytest.param(header(Content_Type="text/html"), id="wrong type"),
    ],
)
def test_simple_servers_do(server: FaultServer, volume: Path, kind: str, fault: Fault) -> None:
    job = job_for(server, volume, kind)
    server.always("GET ", fault)
    run(job)
    assert_arrived(volume)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_what_arrived_is_not_fetched_again_after_an_interruption(server: FaultServer, volume: Path, kind: str) -> None:
    job = job_for(server, volume, kind)
    with pytest.raises(KeyboardInterrupt):
        run(job, BreakingProgress(15 * MIB, KeyboardInterrupt()))
    assert sorted(os.listdir(volume)) == [".disk.img.journal", ".disk.img.partial"]
    result = run(replace(job, source=job.source + "?signature=another"))
    assert_arrived(volume)
    assert result.resumed_bytes > 4 * MIB
    assert result.fetched_bytes <= len(IMAGES[kind]) - result.resumed_bytes + 2 * MIB


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_file_that_was_replaced_is_fetched_anew(server: FaultServer, volume: Path, kind: str) -> None:
    job = job_for(server, volume, kind)
    with pytest.raises(KeyboardInterrupt):
        run(job, BreakingProgress(15 * MIB, KeyboardInterrupt()))
    changed = bytearray(IMAGES[kind])
    changed[-1] ^= 1
    server.put_file(f"/{kind}", bytes(changed))
    assert run(job).resumed_bytes == 0
    assert (volume / "disk.img").read_bytes()[-1] == DISK[-1] ^ 1
    assert os.listdir(volume) == ["disk.img"]


def test_a_file_that_is_replaced_meanwhile_is_never_mixed(server: FaultServer, volume: Path, kind: str) -> None:
    job = job_for(server, volume, kind)
    changed = bytearray(IMAGES[kind])
    changed[-1000] ^= 1

    def replaced(_answer: object) -> None:
        server.put_file(f"/{kind}", bytes(changed))

    server.script("GET ", drop_after(6 * MIB), together(drop_after(MIB), replaced))
    with pytest.raises(ImagekitError) as caught:
        run(job)
    assert caught.value.reason == "SourceChanged"
    assert "disk.img" not in os.listdir(volume)
    if kind != "raw.gz":  # whose change broke it
        assert run(job).resumed_bytes == 0
        assert os.listdir(volume) == ["disk.img"]


def test_checksum(server: FaultServer, volume: Path, kind: str) -> None:
    job = job_for(server, volume, kind)
    good = hashlib.sha256(IMAGES[kind]).hexdigest()
    server.script("GET ", together(flip(len(IMAGES[kind]) - 3 * MIB), drop_after(12 * MIB)))
    server.always("GET ", flip(len(IMAGES[kind]) - 3 * MIB))
    with pytest.raises(VerificationError):
        run(replace(job, checksum=good))
    assert os.listdir(volume) == []
    with fault_server() as honest:
        job = job_for(honest, volume, kind)
        honest.script("GET ", drop_after(10 * MIB), drop_after(4 * MIB))
        run(replace(job, checksum=good))
    assert_arrived(volume)


def test_a_disk_that_does_not_fit_is_not_downloaded(server: FaultServer, volume: Path) -> None:
    server.put_file("/huge", poke_qcow2(IMAGES["qcow2"], size=1 << 42, l1_size=1 << 13))
    with pytest.raises(NoSpaceError) as caught:
        run(ImportJob(source=f"{server.origin}/huge", target=str(volume)))
    assert caught.value.reason == "TooLarge"
    assert server.sent_bytes < 12 * MIB  # what the kernel's buffers took
    assert os.listdir(volume) == []


def test_what_is_not_there(server: FaultServer, volume: Path) -> None:
    with pytest.raises(NotFoundError):
        run(ImportJob(source=f"{server.origin}/nothing", target=str(volume)))
    assert os.listdir(volume) == []


def test_a_server_that_never_recovers(server: FaultServer, volume: Path, kind: str) -> None:
    job = job_for(server, volume, kind)
    server.script("GET ", drop_after(9 * MIB))
    server.always("GET ", status(503))
    with pytest.raises(ImagekitError) as caught:
        run(job)
    assert caught.value.temporary
    assert "disk.img" not in os.listdir(volume)
    if kind == "raw.gz":
        assert os.listdir(volume) == []


def registry_job(tmp_path: Path, volume: Path, registry: object, content: bytes) -> ImportJob:
    """Put an image with this disk into the registry, and return the job that imports it."""
    from registrydisk.layout import open_layout_source
    from registrydisk.manifest import parse_manifest
    from tests.support.fault_registry import FaultRegistry

    assert isinstance(registry, FaultRegistry)
    write_layout(tmp_path / "layout", [layer(("disk/disk.qcow2", content))])
    source = open_layout_source(tmp_path / "layout", tag="1")
    raw = source.read_manifest()
    manifest = parse_manifest(raw)
    for descriptor in (manifest.config, *manifest.layers):
        registry.put_blob((tmp_path / "layout/blobs/sha256" / descriptor.digest.encoded).read_bytes())
    registry.put_manifest("disks/a", "1", raw)
    source.close()
    return ImportJob(source=f"docker://{registry.host}/disks/a:1", target=str(volume))


def test_a_layer_that_breaks_off_is_resumed(tmp_path: Path, volume: Path) -> None:
    with fault_registry() as registry:
        job = registry_job(tmp_path, volume, registry, IMAGES["qcow2"])
        registry.script("GET .*/blobs/", none, drop_after(9 * MIB), reset_after(5 * MIB), status(503), drop_after(0))
        result = run(job)
    assert_arrived(volume)
    assert result.fetched_bytes <= 1.05 * len(IMAGES["qcow2"])
    assert result.payload_path == "disk/disk.qcow2"


def test_a_flipped_byte_in_a_layer_is_found(tmp_path: Path, volume: Path) -> None:
    with fault_registry() as registry:
        job = registry_job(tmp_path, volume, registry, IMAGES["qcow2"])
        registry.always(f"GET .*/blobs/{max(registry.blobs, key=lambda digest: len(registry.blobs[digest]))}", flip(4))
        with pytest.raises(VerificationError) as caught:
            run(job)
    assert caught.value.reason == "DigestMismatch"
    assert os.listdir(volume) == []
