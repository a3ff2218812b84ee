"""The guest's disk: the same bytes for the same inputs, small, and what the inspector takes for a safe qcow2."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagekit.base.units import MIB
from imagekit.image import DiskFormat
from imagekit.inspection import inspect_file, require_safe
from tests.guest import build_guest
from tests.guest.build import _build
from tests.guest.initrd import Entry, directory, make_initrd, program
from tests.guest.packages import find_kernel

pytestmark = pytest.mark.process


@pytest.mark.slow
def test_build_is_reproducible_small_and_safe(tmp_path: Path) -> None:
    cached = build_guest(tmp_path / "cached.qcow2")
    _build(tmp_path / "again.qcow2", find_kernel())
    assert cached.read_bytes() == (tmp_path / "again.qcow2").read_bytes()
    assert cached.stat().st_size < 64 * MIB
    info = inspect_file(cached)
    require_safe(info, what="the guest's disk")
    assert (info.format, info.virtual_size_bytes) == (DiskFormat.QCOW2, 64 * MIB)


def test_initrd_is_an_archive_that_cpio_reads(tmp_path: Path) -> None:
    import gzip
    import subprocess

    from tests.support.prerequisites import require_program

    require_program("cpio")
    entries = [directory("bin"), program("bin/busybox", b"abc"), Entry(name="odd", mode=0o100644, content=b"12345")]
    archive = gzip.decompress(make_initrd(entries))
    listed = subprocess.run(["cpio", "-tv", "--quiet"], input=archive, capture_output=True, check=True, timeout=30).stdout.decode()
    assert [line.split()[-1] for line in listed.splitlines()] == ["bin", "bin/busybox", "odd"]
    assert [line.split()[0] for line in listed.splitlines()] == ["drwxr-xr-x", "-rwxr-xr-x", "-rw-r--r--"]
    assert make_initrd(entries) == make_initrd(entries)
