"""What lint says of images: each reason once, and nothing of a good one."""

from __future__ import annotations

import gzip
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagekit.base.progress import SilentProgress
from registrydisk.build import BuildRequest, build_image, build_index
from registrydisk.compressor import LayerMode
from registrydisk.digest import Digest
from registrydisk.lint import LintLevel, LintReport
from registrydisk.lint_run import format_reports, lint_source
from registrydisk.manifest import OCI_INDEX, OCI_LAYER, Index, Platform
from tests.support.images import qcow2_image, vmdk_image, with_backing_file
from tests.support.memory_store import MemoryStore, image_of, tar_archive, tar_file

_DISK = qcow2_image()
_GOOD: dict[str, Any] = {"uid": 107, "gid": 107, "mode": 0o444}
_ERROR, _WARNING, _INFO = LintLevel.ERROR, LintLevel.WARNING, LintLevel.INFO


def _lint(store: MemoryStore, *, is_quick: bool = False) -> LintReport:
    (report,) = lint_source(store, platform=None, is_quick=is_quick, progress=SilentProgress())
    return report


def _said(report: LintReport) -> set[tuple[LintLevel, str]]:
    return {(finding.level, finding.reason) for finding in report.findings}


def _layer(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return tar_archive(tar_file("disk", type=tarfile.DIRTYPE, mode=0o555, uid=107), *members)


def _one(content: bytes = _DISK, **facts: Any) -> bytes:
    return _layer(tar_file("disk/x", content, **{**_GOOD, **facts}))


@pytest.mark.parametrize("mode", [LayerMode.AUTO, LayerMode.STORE, LayerMode.GZIP])
def test_nothing_is_said_of_what_we_build(tmp_path: Path, mode: LayerMode) -> None:
    (tmp_path / "x.qcow2").write_bytes(_DISK)
    store = MemoryStore()
    labels = {"instancetype.kubevirt.io/default-instancetype": "a", "instancetype.kubevirt.io/default-preference": "b"}
    request = BuildRequest(disk=str(tmp_path / "x.qcow2"), labels=labels, mode=mode)
    build_image(request, store, progress=SilentProgress())
    report = _lint(store)
    assert report.findings == ()
    assert report.is_complete
    assert format_reports((report,)) == f"{report.platform}: nothing to say"


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        pytest.param(_layer(), (_ERROR, "NoDiskInImage"), id="no disk"),
        pytest.param(tar_archive(tar_file("images/x.qcow2", _DISK)), (_ERROR, "NoDiskInImage"), id="in another place"),
        pytest.param(_layer(tar_file("disk/a", b"1"), tar_file("disk/b", b"1")), (_ERROR, "AmbiguousDisk"), id="two disks"),
        pytest.param(_layer(tar_file("disk/x", type=tarfile.SYMTYPE, linkname="/x")), (_ERROR, "UnsafeImage"), id="link"),
        pytest.param(_layer(tar_file("disk/y/x", _DISK, **_GOOD)), (_ERROR, "WrongPath"), id="too deep"),
        pytest.param(_one(b""), (_ERROR, "EmptyDisk"), id="empty"),
        pytest.param(_one(mode=0o400, uid=0, gid=0), (_ERROR, "UnreadableDisk"), id="root only"),
        pytest.param(_one(mode=0o004), (_ERROR, "UnreadableDisk"), id="others only"),
        pytest.param(_one(mode=0o644, uid=0, gid=0), (_WARNING, "WrongOwner"), id="root's"),
        pytest.param(_one(mode=0o644), (_INFO, "WritableDisk"), id="writable"),
        pytest.param(
            tar_archive(tar_file("disk", type=tarfile.DIRTYPE, mode=0o700), tar_file("disk/x", _DISK, **_GOOD)),
            (_ERROR, "UnreadableDisk"),
            id="closed directory",
        ),
        pytest.param(_one(gzip.compress(_DISK)), (_ERROR, "CompressedDisk"), id="compressed"),
        pytest.param(_one(vmdk_image()), (_ERROR, "UnsupportedFormat"), id="vmdk"),
        pytest.param(_one(with_backing_file(_DISK, "/etc/passwd")), (_ERROR, "UnsafeImage"), id="backing file"),
        pytest.param(_one(b"x" * 1000), (_WARNING, "OddSize"), id="odd size"),
        pytest.param(_one(mtime=1700000000), (_INFO, "UnstableTime"), id="own time"),
        pytest.param(_one(pax_headers={"SCHILY.xattr.user.a": "1"}), (_INFO, "ExtendedAttributes"), id="attributes"),
        pytest.param(_one(), (_INFO, "NoInstancetype"), id="no instance type"),
    ],
)
def test_each_mistake_is_told(layer: bytes, expected: tuple[LintLevel, str]) -> None:
    report = _lint(image_of([layer], config={"created": "1970-01-01T00:00:00Z"}))
    assert expected in _said(report)
    assert report.fails(is_strict=False) == (expected[0] is _ERROR)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architecture": ""}, (_ERROR, "NoPlatform")),
        ({"os": "windows"}, (_WARNING, "NotLinux")),
        ({"config": {"Labels": {"containers.bootc": "1"}}}, (_ERROR, "BootableContainer")),
        ({"config": {"Labels": {"shasum": "0" * 64}}}, (_ERROR, "ChecksumMismatch")),
        (
            {"config": {"Labels": {"instancetype.kubevirt.io/default-instancetype": "a"}}},
            (_WARNING, "LabelWithoutEnvironment"),
        ),
    ],
)
def test_what_the_configuration_says_is_checked(config: dict[str, object], expected: tuple[LintLevel, str]) -> None:
    assert expected in _said(_lint(image_of([_one()], config=config)))


@pytest.mark.parametrize(
    ("content", "compress", "suffix", "expected"),
    [
        pytest.param(b"raw " * 4096, bytes, "", (_WARNING, "UncompressedRaw"), id="raw in a plain layer"),
        pytest.param(
            qcow2_image(random.Random(1).randbytes(8 << 20)),
            gzip.compress,
            "+gzip",
            (_WARNING, "DoubleCompression"),
            id="compressed for nothing",
        ),
    ],
)
def test_compression_that_does_not_fit_is_told(
    content: bytes, compress: Callable[[bytes], bytes], suffix: str, expected: tuple[LintLevel, str]
) -> None:
    assert expected in _said(_lint(image_of([_one(content)], compress=compress, media_type=OCI_LAYER + suffix)))


def test_large_sparse_raw_disks_are_told(tmp_path: Path) -> None:
    with (tmp_path / "x.img").open("wb") as file:
        file.truncate((1 << 30) + 512)
    store = MemoryStore()
    build_image(BuildRequest(disk=str(tmp_path / "x.img"), mode=LayerMode.ZSTD), store, progress=SilentProgress())
    assert {(_WARNING, "SparseRaw"), (_INFO, "ZstdLayer")} <= _said(_lint(store))


def test_a_changed_layer_is_the_worst_finding() -> None:
    report = _lint(image_of([_one()], diff_ids=[Digest.of(b"other")]))
    assert _said(report) == {(_ERROR, "DigestMismatch")}
    assert not report.is_complete


def test_a_foreign_layer_is_told() -> None:
    assert _said(_lint(image_of([_one()], media_type=f"{OCI_LAYER}.foreign"))) == {(_ERROR, "UnsupportedFormat")}


def test_quick_stops_at_the_disks_head() -> None:
    store = image_of([_layer(tar_file("disk/a", _DISK + bytes(4 << 20)), tar_file("disk/b", b"1"))])
    report = _lint(store, is_quick=True)
    assert not report.is_complete
    assert (_ERROR, "AmbiguousDisk") not in _said(report)
    assert "not read to its end" in format_reports((report,))


def test_strict_fails_on_warnings_too() -> None:
    report = _lint(image_of([_one(mode=0o644, uid=0, gid=0)]))
    assert report.fails(is_strict=True)
    assert not report.fails(is_strict=False)


def test_every_image_of_an_index_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "x.qcow2").write_bytes(_DISK)
    platforms = [Platform(os="linux", architecture=name) for name in ("amd64", "arm64")]
    store = MemoryStore()
    build_index(
        [BuildRequest(disk=str(tmp_path / "x.qcow2"), platform=each) for each in platforms], store, progress=SilentProgress()
    )
    reports = lint_source(store, platform=None, is_quick=False, progress=SilentProgress())
    assert [str(report.platform) for report in reports] == ["linux/amd64", "linux/arm64"]
    (only,) = lint_source(store, platform=platforms[1], is_quick=False, progress=SilentProgress())
    assert only.platform == platforms[1]


def test_an_index_that_lies_about_the_platform_is_told() -> None:
    store = image_of([_one()])
    assert store.top is not None
    entry = store.top.descriptor(platform=Platform(os="linux", architecture="arm64"))
    store.write_manifest(Index(media_type=OCI_INDEX, manifests=(entry,)).to_raw())
    assert (_ERROR, "PlatformMismatch") in _said(_lint(store))
