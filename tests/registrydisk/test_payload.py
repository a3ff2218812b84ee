"""Reading the disk out of images: layers over layers, and everything that must not be taken for a disk."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from imagekit.base.errors import ImageError, ImagekitError, NoSpaceError, VerificationError
from imagekit.base.process import ProcessLimits, run
from imagekit.base.progress import SilentProgress
from registrydisk.digest import Digest
from registrydisk.manifest import OCI_LAYER
from registrydisk.payload import extract_payload, open_payload
from registrydisk.selection import read_config, select_manifest
from tests.support.images import qcow2_image, with_backing_file
from tests.support.memory_store import MemoryStore, image_of, tar_archive, tar_file

_DISK = b"a disk\n" * 3000
_DIRECTORY = {"type": tarfile.DIRTYPE}


def _read(store: MemoryStore) -> tuple[str, bytes]:
    """Return path and content of the disk, verified."""
    _, manifest = select_manifest(store)
    with open_payload(store, manifest, read_config(store, manifest)) as payload:
        content = b""
        while chunk := payload.stream.read(1000):
            content += chunk
        assert len(content) == payload.size_bytes
        payload.verify()
        return payload.path, content


def _reason(store: MemoryStore) -> str:
    with pytest.raises(ImagekitError) as caught:
        _read(store)
    return caught.value.reason


def _layer(*names: str, content: bytes = _DISK) -> bytes:
    """Return a layer of these names: those with a slash at the end are directories, whiteouts are empty."""
    members = []
    for name in names:
        is_whiteout = name.rpartition("/")[2].startswith(".wh.")
        members.append(
            tar_file(name.rstrip("/"), **_DIRECTORY) if name.endswith("/") else tar_file(name, b"" if is_whiteout else content)
        )
    return tar_archive(*members)


@pytest.mark.parametrize("name", ["disk/x.qcow2", "./disk/x.qcow2", "/disk/x.qcow2", "disk//x.qcow2"])
def test_every_way_to_write_the_path_is_found(name: str) -> None:
    assert _read(image_of([_layer("disk/", name)])) == ("disk/x.qcow2", _DISK)


@pytest.mark.parametrize(
    ("compress", "suffix"),
    [
        pytest.param(gzip.compress, "+gzip", id="gzip"),
        pytest.param(lambda data: gzip.compress(data[:777]) + gzip.compress(data[777:]), "+gzip", id="gzip members"),
        pytest.param(zstandard.ZstdCompressor().compress, "+zstd", id="zstd"),
        pytest.param(bytes, "", id="none"),
        pytest.param(gzip.compress, "", id="gzip by its magic alone"),
        pytest.param(bytes, "+gzip", id="none though the type says gzip"),
    ],
)
def test_every_compression_of_layers_is_read(compress: Callable[[bytes], bytes], suffix: str) -> None:
    store = image_of([_layer("disk/x")], compress=compress, media_type=OCI_LAYER + suffix)
    assert _read(store) == ("disk/x", _DISK)


@pytest.mark.parametrize("compress", [lzma.compress, bz2.compress])
def test_compressions_that_layers_never_have_are_refused(compress: Callable[[bytes], bytes]) -> None:
    assert _reason(image_of([_layer("disk/x")], compress=compress)) == "UnsupportedFormat"


@pytest.mark.parametrize(
    ("layers", "path"),
    [
        pytest.param([["etc/", "etc/passwd"], ["disk/", "disk/x"]], "disk/x", id="base without disk"),
        pytest.param([["disk/", "disk/x"], ["etc/motd"]], "disk/x", id="layer above without disk"),
        pytest.param([["disk/old"], ["disk/.wh.old", "disk/new"]], "disk/new", id="replaced by whiteout"),
        pytest.param([["disk/x"], ["disk/x"]], "disk/x", id="overwritten"),
        pytest.param([["disk/old"], ["disk/.wh..wh..opq", "disk/new"]], "disk/new", id="opaque directory"),
        pytest.param([["disk/old"], ["disk/new", "disk/.wh..wh..opq"]], "disk/new", id="opaque after the disk"),
        pytest.param([["disk/old"], [".wh.disk", "disk/new"]], "disk/new", id="directory whited out"),
        pytest.param([["disk/old"], [".wh.disk"], ["disk/new"]], "disk/new", id="whited out, then made again"),
        pytest.param([["disk/a", "disk/b"], ["disk/.wh.a"]], "disk/b", id="one of two whited out"),
        pytest.param([["disk/old"], [".wh..wh..opq", "disk/new"]], "disk/new", id="opaque root"),
        pytest.param([["disk/x/deep"], ["disk/x"]], "disk/x", id="file over directory"),
        pytest.param([["disk/x"], ["disk/x/", "disk/x/y"]], "disk/x/y", id="directory over file"),
        pytest.param([["disk/x"], [".wh.disk-other", "other/.wh.disk"]], "disk/x", id="whiteouts of other names"),
        pytest.param([["diskette/y", "disk.idx", "disk/x"]], "disk/x", id="names that begin alike"),
    ],
)
def test_upper_layers_hide_lower_ones(layers: list[list[str]], path: str) -> None:
    built = [_layer(*names, content=b"%d" % number + _DISK) for number, names in enumerate(layers)]
    found, content = _read(image_of(built))
    assert found == path
    highest = max(number for number, names in enumerate(layers) if path in names)
    assert content == b"%d" % highest + _DISK


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        pytest.param([["etc/passwd"]], "NoDiskInImage", id="none"),
        pytest.param([["disk/"]], "NoDiskInImage", id="empty directory"),
        pytest.param([["disk"]], "NoDiskInImage", id="a file instead of the directory"),
        pytest.param([["disk/x"], ["disk/.wh.x"]], "NoDiskInImage", id="whited out"),
        pytest.param([["disk/x"], [".wh.disk"]], "NoDiskInImage", id="directory whited out"),
        pytest.param([["disk/a", "disk/b"]], "AmbiguousDisk", id="two"),
        pytest.param([["disk/x", "disk/x"]], "AmbiguousDisk", id="one name twice in a layer"),
        pytest.param([["disk/a"], ["disk/b"]], "AmbiguousDisk", id="two in two layers"),
        pytest.param([["disk/a"], ["etc/motd"], ["disk/b"]], "AmbiguousDisk", id="two with a layer between"),
    ],
)
def test_no_disk_and_many_disks_are_named_errors(layers: list[list[str]], reason: str) -> None:
    assert _reason(image_of([_layer(*names) for names in layers])) == reason


def test_ambiguous_disks_are_listed() -> None:
    with pytest.raises(ImageError, match=r"disk/a, disk/b"):
        _read(image_of([_layer("disk/b", "disk/a")]))


@pytest.mark.parametrize(
    "member",
    [
        tar_file("disk/x", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        tar_file("disk/x", type=tarfile.LNKTYPE, linkname="etc/passwd"),
        tar_file("disk/x", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        tar_file("disk/x", type=tarfile.BLKTYPE, devmajor=8),
        tar_file("disk/x", type=tarfile.FIFOTYPE),
        tar_file("disk", type=tarfile.SYMTYPE, linkname="etc"),
        tar_file("disk/x", b"1", pax_headers={"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 40)}),
        tar_file("disk/../disk/x", b"1"),
    ],
    ids=lambda member: f"{member[0].name}-{member[0].type!r}",
)
def test_what_is_no_plain_file_is_unsafe(member: tuple[tarfile.TarInfo, bytes]) -> None:
    assert _reason(image_of([tar_archive(member)])) == "UnsafeImage"
    assert _reason(image_of([tar_archive(tar_file("disk/a", b"disk"), member)])) in ("UnsafeImage", "AmbiguousDisk")


def test_links_that_upper_layers_hide_do_no_harm() -> None:
    link = tar_archive(tar_file("disk/x", type=tarfile.SYMTYPE, linkname="/etc/passwd"))
    assert _read(image_of([link, _layer("disk/x")])) == ("disk/x", _DISK)


def test_an_empty_disk_is_none() -> None:
    assert _reason(image_of([_layer("disk/x", content=b"")])) == "NoDiskInImage"


def test_no_layer_is_read_twice_and_the_hidden_ones_not_at_all() -> None:
    store = image_of([_layer("disk/old"), _layer("disk/.wh..wh..opq", "disk/x"), _layer("etc/motd")])
    _, manifest = select_manifest(store)
    store.opened.clear()
    with open_payload(store, manifest, read_config(store, manifest)) as payload:
        payload.verify()
    layers = [digest for digest in store.opened if digest != manifest.config.digest]
    assert layers == [manifest.layers[2].digest, manifest.layers[1].digest]


def test_a_bootable_container_is_no_disk() -> None:
    store = image_of([_layer("disk/x")], config={"config": {"Labels": {"containers.bootc": "1"}}})
    assert _reason(store) == "NoDiskInImage"


def test_another_number_of_diff_ids_is_refused() -> None:
    assert _reason(image_of([_layer("disk/x")], diff_ids=[])) == "BadManifest"


@pytest.mark.parametrize("media_type", ["application/vnd.kubevirt.disk.raw+zstd", f"{OCI_LAYER}.foreign", ""])
def test_layers_of_other_types_are_refused(media_type: str) -> None:
    assert _reason(image_of([_layer("disk/x")], media_type=media_type)) in ("BadManifest", "UnsupportedFormat")


def _changed(store: MemoryStore, change: Callable[[bytes], bytes]) -> MemoryStore:
    """Return the store with the last layer's bytes changed behind its digest."""
    _, manifest = select_manifest(store)
    digest = manifest.layers[-1].digest
    store.blobs[digest] = change(store.blobs[digest])
    return store


@pytest.mark.parametrize("position", [0, 600, 1500, 21_000, -1])
def test_a_flipped_byte_is_noticed(position: int) -> None:
    def flip(blob: bytes) -> bytes:
        changed = bytearray(blob)
        changed[position] ^= 0x10
        return bytes(changed)

    store = _changed(image_of([_layer("disk/x")], compress=bytes, media_type=OCI_LAYER), flip)
    assert _reason(store) in ("DigestMismatch", "UnsafeImage", "UnsupportedFormat")
    if position in (1500, -1):
        assert _reason(store) == "DigestMismatch"


def test_a_layer_that_ends_early_is_noticed() -> None:
    store = _changed(image_of([_layer("disk/x")]), lambda blob: blob[:-20])
    assert _reason(store) == "TruncatedStream"


def test_a_layer_with_more_behind_it_is_noticed() -> None:
    store = _changed(image_of([_layer("disk/x")]), lambda blob: blob + b"more")
    assert _reason(store) in ("SizeMismatch", "TrailingGarbage")


def test_a_wrong_diff_id_is_noticed() -> None:
    assert _reason(image_of([_layer("disk/x")], diff_ids=[Digest.of(b"other")])) == "DigestMismatch"


def test_a_bomb_beside_the_disk_is_stopped() -> None:
    """Three gigabytes of zeros in a hundred kilobytes of zstd, which deflate could never do."""
    zeros = zstandard.ZstdCompressor(level=19).compress(bytes(64 << 20))
    head = tar_file("zeros", b"")[0]
    head.size = 48 * (64 << 20)
    blob = zstandard.ZstdCompressor().compress(head.tobuf()) + zeros * 48
    store = image_of([blob], compress=bytes, media_type=f"{OCI_LAYER}+zstd")
    assert _reason(store) == "TooLarge"


def _extract(store: MemoryStore, target: Path) -> Digest:
    _, manifest = select_manifest(store)
    return extract_payload(store, manifest, read_config(store, manifest), target=target, progress=SilentProgress()).digest


def test_extracting_writes_the_disk_with_holes(tmp_path: Path) -> None:
    disk = b"begin" + bytes(16 << 20) + b"end" + bytes(3 << 20)
    digest = _extract(image_of([_layer("disk/x.img", content=disk)]), tmp_path / "disk.img")
    assert digest == Digest.of(disk)
    assert (tmp_path / "disk.img").read_bytes() == disk
    assert (tmp_path / "disk.img").stat().st_blocks * 512 <= 4 << 20


def test_extracting_leaves_nothing_when_a_digest_fails(tmp_path: Path) -> None:
    with pytest.raises(VerificationError):
        _extract(image_of([_layer("disk/x")], diff_ids=[Digest.of(b"other")]), tmp_path / "disk.img")
    assert not list(tmp_path.iterdir())


def test_extracting_refuses_a_disk_that_names_other_files(tmp_path: Path) -> None:
    evil = with_backing_file(qcow2_image(), "/etc/passwd")
    with pytest.raises(ImageError) as caught:
        _extract(image_of([_layer("disk/x", content=evil)]), tmp_path / "disk.qcow2")
    assert caught.value.reason == "UnsafeImage"
    assert not list(tmp_path.iterdir())


@pytest.mark.process
@pytest.mark.root
def test_extracting_into_a_full_file_system_is_a_named_error(tmp_path: Path) -> None:
    limits = ProcessLimits(timeout_seconds=10)
    run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], purpose="make a small file system", limits=limits)
    try:
        with pytest.raises(NoSpaceError):
            _extract(image_of([_layer("disk/x", content=b"full" * (1 << 20))]), tmp_path / "disk.img")
        assert not list(tmp_path.iterdir())
    finally:
        run(["umount", str(tmp_path)], purpose="remove a small file system", limits=limits)
