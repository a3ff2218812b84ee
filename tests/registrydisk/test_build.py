"""Images that we build: what they say, that they are the same each time, and every kind of disk that goes in."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from pathlib import Path

import pytest

from imagekit.base.errors import ImageError, NotFoundError, UsageError
from imagekit.base.progress import SilentProgress
from imagekit.image import DiskFormat
from registrydisk.build import BuildRequest, BuiltImage, build_image, build_index
from registrydisk.build_plan import plan_disks
from registrydisk.compressor import LayerMode
from registrydisk.digest import Digest
from registrydisk.manifest import Manifest, Platform, parse_index, parse_manifest
from registrydisk.payload import extract_payload
from registrydisk.selection import read_config, select_manifest
from tests.support.images import qcow2_image, sample_disk, vmdk_image, with_backing_file
from tests.support.memory_store import MemoryStore

AMD64 = Platform(os="linux", architecture="amd64")
ARM64 = Platform(os="linux", architecture="arm64", variant="v8")


def _build(disk: Path, **options: object) -> tuple[BuiltImage, MemoryStore]:
    store = MemoryStore()
    request = BuildRequest(disk=str(disk), **{"platform": AMD64, **options})  # type: ignore[arg-type]  # a test's shorthand
    return build_image(request, store, progress=SilentProgress()), store


def _manifest(store: MemoryStore) -> Manifest:
    assert store.top is not None
    return parse_manifest(store.top)


def _payload(store: MemoryStore, target: Path, platform: Platform = AMD64) -> bytes:
    _, manifest = select_manifest(store, platform=platform)
    extract_payload(store, manifest, read_config(store, manifest), target=target, progress=SilentProgress())
    return target.read_bytes()


@pytest.fixture
def qcow2(tmp_path: Path) -> Path:
    path = tmp_path / "fedora.qcow2"
    path.write_bytes(qcow2_image())
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.write(sample_disk())
        file.truncate(32 << 20)
    return path


def test_documents_are_the_reference(qcow2: Path) -> None:
    labels = {"instancetype.kubevirt.io/default-instancetype": "u1.small", "note": "a"}
    built, store = _build(
        qcow2, mode=LayerMode.STORE, labels=labels, environment={"A": "1"}, annotations={"k": "v"}, created_seconds=1700000000
    )
    manifest = _manifest(store)
    sha256 = Digest.of(qcow2.read_bytes()).encoded
    assert dict(manifest.annotations) == {
        "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
        "org.opencontainers.image.title": "fedora.qcow2",
        "io.imagekit.disk.format": "qcow2",
        "io.imagekit.disk.virtual-size": str(built.virtual_size_bytes),
        "io.imagekit.disk.sha256": sha256,
        "io.imagekit.disk.compression": "gzip;engine=stored;block=4194304",
        "k": "v",
    }
    config = json.loads(store.blobs[manifest.config.digest])
    assert config == {
        "architecture": "amd64",
        "os": "linux",
        "created": "2023-11-14T22:13:20Z",
        "config": {
            "Env": ["A=1", "INSTANCETYPE_KUBEVIRT_IO_DEFAULT_INSTANCETYPE=u1.small"],
            "Labels": {**labels, "shasum": sha256},
            "Entrypoint": ["no-entrypoint"],
        },
        "rootfs": {"type": "layers", "diff_ids": [str(built.diff_id)]},
        "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "registrydisk build"}],
    }
    assert built.digest == store.top.digest if store.top else False
    assert (built.disk_path, built.disk_format) == ("/disk/fedora.qcow2", DiskFormat.QCOW2)


@pytest.mark.parametrize("mode", [LayerMode.GZIP, LayerMode.STORE, LayerMode.ZSTD, LayerMode.NONE])
def test_building_again_gives_the_same_digest(qcow2: Path, mode: LayerMode, tmp_path: Path) -> None:
    first, _ = _build(qcow2, mode=mode)
    copy = tmp_path / "elsewhere" / qcow2.name
    copy.parent.mkdir()
    copy.write_bytes(qcow2.read_bytes())
    copy.chmod(0o600)
    os.utime(copy, (1, 1))
    before = os.umask(0o077)
    try:
        second, _ = _build(copy, mode=mode)
    finally:
        os.umask(before)
    assert first.digest == second.digest


def test_raw_disks_are_kept_and_their_holes_not_read(raw: Path, tmp_path: Path) -> None:
    built, store = _build(raw)
    assert (built.disk_path, built.disk_format, built.payload_bytes) == ("/disk/disk.img", DiskFormat.RAW, 32 << 20)
    assert built.size_bytes < 2 << 20
    assert _payload(store, tmp_path / "out") == raw.read_bytes()


@pytest.mark.parametrize(("ending", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_compressed_disks_are_unpacked_on_the_way(qcow2: Path, ending: str, compress: object, tmp_path: Path) -> None:
    packed = tmp_path / f"fedora.qcow2{ending}"
    packed.write_bytes(compress(qcow2.read_bytes()))  # type: ignore[operator]  # a function from the table
    built, store = _build(packed, mode=LayerMode.STORE)
    assert built.digest == _build(qcow2, mode=LayerMode.STORE)[0].digest
    assert _payload(store, tmp_path / "out") == qcow2.read_bytes()


@pytest.mark.process
def test_other_formats_are_converted_and_leave_nothing_behind(tmp_path: Path) -> None:
    disk, scratch = tmp_path / "windows-11.2.vmdk", tmp_path / "scratch"
    scratch.mkdir()
    disk.write_bytes(vmdk_image())
    built, _ = _build(disk, scratch=scratch)
    assert (built.disk_path, built.disk_format) == ("/disk/windows-11.2.qcow2", DiskFormat.QCOW2)
    assert not list(scratch.iterdir())


@pytest.mark.process
def test_a_disk_is_converted_on_request(raw: Path, tmp_path: Path) -> None:
    built, _ = _build(raw, target_format=DiskFormat.QCOW2, scratch=tmp_path)
    assert (built.disk_path, built.virtual_size_bytes) == ("/disk/disk.qcow2", 32 << 20)


@pytest.mark.parametrize("mode", [LayerMode.AUTO, LayerMode.NONE])
def test_unsafe_disks_go_into_no_image(tmp_path: Path, mode: LayerMode) -> None:
    disk = tmp_path / "evil.qcow2"
    disk.write_bytes(with_backing_file(qcow2_image(), "/etc/passwd"))
    with pytest.raises(ImageError) as caught:
        _build(disk, mode=mode)
    assert caught.value.reason == "UnsafeImage"


def test_auto_stores_what_cannot_be_compressed(tmp_path: Path) -> None:
    noise, text = tmp_path / "noise.img", tmp_path / "text.img"
    noise.write_bytes(os.urandom(2 << 20))
    text.write_bytes(b"compressible " * (1 << 17))
    assert _build(noise)[0].compression.startswith("gzip;engine=stored")
    assert _build(text)[0].compression.startswith("gzip;engine=isal")


def test_auto_looks_at_the_share_of_compressed_clusters(tmp_path: Path) -> None:
    disk = tmp_path / "compressed.qcow2"
    disk.write_bytes(qcow2_image(compression="zlib"))
    assert _build(disk)[0].compression.startswith("gzip;engine=stored")


def test_an_index_joins_platforms_in_one_order(qcow2: Path, raw: Path, tmp_path: Path) -> None:
    requests = [BuildRequest(disk=str(raw), platform=ARM64), BuildRequest(disk=str(qcow2), platform=AMD64)]
    store = MemoryStore()
    index = build_index(requests, store, progress=SilentProgress())
    assert store.top is not None
    assert store.top.digest == index.digest
    assert [str(entry.platform) for entry in parse_index(store.top).manifests] == ["linux/amd64", "linux/arm64/v8"]
    assert _payload(store, tmp_path / "arm", ARM64) == raw.read_bytes()
    assert build_index(requests[::-1], MemoryStore(), progress=SilentProgress()).digest == index.digest


def test_one_platform_twice_is_refused(qcow2: Path) -> None:
    store = MemoryStore()
    with pytest.raises(UsageError):
        build_index([BuildRequest(disk=str(qcow2), platform=AMD64)] * 2, store, progress=SilentProgress())
    assert not store.blobs


@pytest.mark.parametrize("name", ["../x", "a/b", ".", "..", ".wh.x", "a\nb", "x" * 300])
def test_names_that_are_no_plain_file_are_refused(qcow2: Path, name: str) -> None:
    with pytest.raises(UsageError):
        _build(qcow2, disk_name=name)


def test_a_missing_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        _build(tmp_path / "none.qcow2")


@pytest.mark.parametrize(
    ("disk", "platforms", "expected"),
    [
        ("a", [], [("a", None)]),
        ("a", ["linux/arm64"], [("a", "linux/arm64")]),
        (None, ["amd64=a", "linux/arm64/v8=b"], [("a", "linux/amd64"), ("b", "linux/arm64/v8")]),
    ],
)
def test_plans(disk: str | None, platforms: list[str], expected: list[tuple[str, str | None]]) -> None:
    planned = plan_disks(BuildRequest(disk=""), disk=disk, platforms=platforms)
    assert [(request.disk, str(request.platform) if request.platform else None) for request in planned] == expected


@pytest.mark.parametrize(("disk", "platforms"), [(None, []), (None, ["amd64"]), ("a", ["amd64=b"]), (None, ["amd64="])])
def test_plans_that_make_no_sense(disk: str | None, platforms: list[str]) -> None:
    with pytest.raises(UsageError):
        plan_disks(BuildRequest(disk=""), disk=disk, platforms=platforms)
