"""OCI and docker archives: written in one pass, read without unpacking, exchanged with skopeo."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagekit.base.errors import ImageError, ImagekitError, NotFoundError, UsageError
from imagekit.base.progress import SilentProgress
from registrydisk.blob import read_blob
from registrydisk.digest import Digest
from registrydisk.docker_archive import DockerArchiveTarget, open_docker_archive
from registrydisk.image_config import ImageConfig, read_config
from registrydisk.layout_source import blob_name
from registrydisk.manifest import OCI_INDEX, OCI_LAYER, Descriptor, Index, parse_manifest
from registrydisk.oci_archive import OciArchiveTarget, open_oci_archive
from registrydisk.store import ImageSource
from registrydisk.transfer import copy_image
from tests.registrydisk.samples import MemoryImage, layer_tar, write_image
from tests.support.prerequisites import require_program


@pytest.fixture
def image() -> MemoryImage:
    sample = MemoryImage()
    sample.add_image(b"disk" * 1000)
    return sample


def oci_archive(path: Path, image: MemoryImage, *, tag: str = "") -> Path:
    with closing(OciArchiveTarget(path, tag=tag)) as target:
        write_image(image, target)
    return path


def docker_archive(path: Path, image: MemoryImage, *, reference: str = "") -> Path:
    with closing(DockerArchiveTarget(path, reference=reference)) as target:
        write_image(image, target)
    return path


def read_all(source: ImageSource) -> list[bytes]:
    manifest = parse_manifest(source.read_manifest())
    read_config(source, manifest)
    return [read_blob(source, blob, most_bytes=1 << 30) for blob in (manifest.config, *manifest.layers)]


def test_oci_archive_is_read_as_written(tmp_path: Path) -> None:
    image = MemoryImage()
    image.add_index("linux/amd64", "linux/arm64")
    with closing(open_oci_archive(oci_archive(tmp_path / "x.tar", image, tag="1"), tag="1")) as source:
        assert source.read_manifest() == image.read_manifest()
        for digest, raw in image.manifests.items():
            assert source.read_manifest(digest) == raw
        for digest, content in image.blobs.items():
            assert (
                read_blob(source, Descriptor(media_type="x", digest=digest, size_bytes=len(content)), most_bytes=1 << 20) == content
            )
    with (
        closing(open_oci_archive(tmp_path / "x.tar", tag="2")) as source,
        pytest.raises(NotFoundError, match="no image with the tag"),
    ):
        source.read_manifest()


@pytest.mark.parametrize("write", [oci_archive, docker_archive])
def test_equal_images_make_equal_archives(tmp_path: Path, image: MemoryImage, write: Callable[[Path, MemoryImage], Path]) -> None:
    assert write(tmp_path / "1.tar", image).read_bytes() == write(tmp_path / "2.tar", image).read_bytes()


@pytest.mark.parametrize("target_class", [OciArchiveTarget, DockerArchiveTarget])
def test_archive_appears_with_its_manifest(
    tmp_path: Path, image: MemoryImage, target_class: type[OciArchiveTarget | DockerArchiveTarget]
) -> None:
    (tmp_path / "x.tar").write_text("old")
    with closing(target_class(tmp_path / "x.tar")) as target:
        writer = target.open_blob_writer(size_bytes=None)
        writer.write(b"blob")
        writer.commit(Digest.of(b"blob"))
        assert target.has_blob(Digest.of(b"blob"))
        assert not target.has_blob(Digest.of(b"other"))
        half = target.open_blob_writer()
        half.write(b"half")
        half.abort()
    assert (tmp_path / "x.tar").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]
    with closing(target_class(tmp_path / "x.tar")) as target:
        write_image(image, target)
        assert tarfile.is_tarfile(tmp_path / "x.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar"]


@pytest.mark.parametrize("target_class", [OciArchiveTarget, DockerArchiveTarget])
def test_what_a_killed_run_left_is_removed(tmp_path: Path, target_class: type[OciArchiveTarget | DockerArchiveTarget]) -> None:
    (tmp_path / ".x.tar.0123456789abcdef.partial").write_text("half")
    (tmp_path / ".other.tar.0123456789abcdef.partial").touch()
    target_class(tmp_path / "x.tar").close()
    assert [path.name for path in tmp_path.iterdir()] == [".other.tar.0123456789abcdef.partial"]


def test_blobs_that_come_twice_are_kept_once(tmp_path: Path, image: MemoryImage) -> None:
    with closing(OciArchiveTarget(tmp_path / "x.tar")) as target:
        for content in (b"same", b"same"):
            writer = target.open_blob_writer()
            writer.write(content)
            writer.commit(Digest.of(content))
        write_image(image, target)
    with closing(open_oci_archive(tmp_path / "x.tar")) as source:
        assert read_all(source) == read_all(image)


@pytest.mark.parametrize("target_class", [OciArchiveTarget, DockerArchiveTarget])
def test_impossible_places_are_refused(tmp_path: Path, target_class: type[OciArchiveTarget | DockerArchiveTarget]) -> None:
    for path in (tmp_path, tmp_path / "missing" / "x.tar"):
        with pytest.raises(UsageError):
            target_class(path)


def test_docker_archive_is_read_as_written(tmp_path: Path, image: MemoryImage) -> None:
    path = docker_archive(tmp_path / "x.tar", image, reference="me/fedora:42")
    with closing(open_docker_archive(path, reference="docker.io/me/fedora:42")) as source:
        assert read_all(source) == read_all(image)
        assert source.read_manifest() == image.read_manifest()
        with pytest.raises(NotFoundError):
            source.read_manifest(Digest.of(b"other"))
        with pytest.raises(NotFoundError):
            source.open_blob(Descriptor(media_type=OCI_LAYER, digest=Digest.of(b"other"), size_bytes=1))
    with pytest.raises(NotFoundError, match="no image other") as caught:
        open_docker_archive(path, reference="other")
    assert "docker.io/me/fedora:42" in caught.value.hint
    with closing(open_oci_archive(path, tag="42")) as same:
        assert same.read_manifest() == image.read_manifest()


def test_docker_archive_takes_no_index(tmp_path: Path) -> None:
    image = MemoryImage()
    image.add_index("linux/amd64", "linux/arm64")
    with closing(DockerArchiveTarget(tmp_path / "x.tar")) as target, pytest.raises(UsageError, match="one platform"):
        copy_image(image, target, platform=None, progress=SilentProgress())
    assert not list(tmp_path.iterdir())


def saved(path: Path, images: Any, **files: bytes) -> Path:
    """Write an archive as ``docker save`` before version 25 did."""
    with tarfile.open(path, "w") as archive:
        for name, content in {**files, "manifest.json": json.dumps(images).encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("pack", "suffix"), [(bytes, ""), (gzip.compress, "+gzip")])
def test_plain_and_compressed_layers_of_docker(tmp_path: Path, pack: Callable[[bytes], bytes], suffix: str) -> None:
    layer = layer_tar(b"disk")
    config = ImageConfig(architecture="amd64", os="linux", diff_ids=(Digest.of(layer),)).to_bytes()
    entry = {"Config": "c.json", "RepoTags": None, "Layers": ["a/layer.tar"]}
    path = saved(tmp_path / "x.tar", [entry], **{"c.json": config, "a/layer.tar": pack(layer)})
    with closing(open_docker_archive(path)) as source:
        assert read_all(source)[1] == pack(layer)
        assert parse_manifest(source.read_manifest()).layers[0].media_type == OCI_LAYER + suffix


@pytest.mark.parametrize("lie", ["digest", "layers", "missing"])
def test_kept_manifest_must_be_of_the_same_files(tmp_path: Path, image: MemoryImage, lie: str) -> None:
    """The list that docker reads decides; what stands beside it is only taken when it says the same."""
    raw = image.read_manifest()
    manifest = parse_manifest(raw)
    config, layer = manifest.config.digest, manifest.layers[0].digest
    if lie == "layers":
        raw = replace(manifest, layers=(*manifest.layers, *manifest.layers)).to_raw()
    content = raw.content + (b" " if lie == "digest" else b"")
    files = {
        "index.json": Index(media_type=OCI_INDEX, manifests=(raw.descriptor(),)).to_raw().content,
        "elsewhere" if lie == "missing" else blob_name(raw.digest): content,
        blob_name(config): image.blobs[config],
        blob_name(layer): image.blobs[layer],
    }
    path = saved(tmp_path / "x.tar", [{"Config": blob_name(config), "Layers": [blob_name(layer)]}], **files)
    with closing(open_docker_archive(path)) as source:
        assert parse_manifest(source.read_manifest()).layers == manifest.layers
        assert len(read_all(source)) == 2


CONFIG = ImageConfig(architecture="amd64", os="linux", diff_ids=(Digest.of(b""),)).to_bytes()


@pytest.mark.parametrize(
    "images",
    [
        {},
        [1],
        [{"Config": "c.json"}],
        [{"Config": "c.json", "Layers": [1]}],
        [{"Config": "c.json", "Layers": ["l"], "RepoTags": "x"}],
        [{"Config": "c.json", "Layers": []}],
        [{"Config": "missing", "Layers": ["l"]}],
        [{"Config": "c.json", "Layers": ["missing"]}],
        [{"Config": "../c.json", "Layers": ["l"]}],
        [{"Config": "c.json", "Layers": ["l"]}] * 2,
        [],
    ],
    ids=str,
)
def test_broken_docker_archives_are_refused(tmp_path: Path, images: Any) -> None:
    before = set(os.listdir("/proc/self/fd"))
    path = saved(tmp_path / "x.tar", images, **{"c.json": CONFIG, "l": b""})
    with pytest.raises(ImagekitError):
        open_docker_archive(path)
    assert set(os.listdir("/proc/self/fd")) == before


def test_layers_in_other_compressions_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.tar", [{"Config": "c.json", "Layers": ["l"]}], **{"c.json": CONFIG, "l": b"BZh91AY&SY" + bytes(60)})
    with pytest.raises(ImageError, match="compressed with bzip2"):
        open_docker_archive(path)


def skopeo(scratch: Path, *arguments: str) -> None:
    command = [require_program("skopeo"), "copy", "--quiet", "--insecure-policy", *arguments]
    subprocess.run(command, check=True, timeout=60, env={**os.environ, "TMPDIR": str(scratch)})


@pytest.mark.process
def test_skopeo_reads_and_writes_oci_archives(tmp_path: Path, image: MemoryImage) -> None:
    oci_archive(tmp_path / "ours.tar", image, tag="1")
    skopeo(tmp_path, f"oci-archive:{tmp_path}/ours.tar:1", f"oci-archive:{tmp_path}/theirs.tar:2")
    with closing(open_oci_archive(tmp_path / "theirs.tar", tag="2")) as source:
        assert read_all(source) == read_all(image)


@pytest.mark.process
def test_skopeo_reads_and_writes_docker_archives(tmp_path: Path, image: MemoryImage) -> None:
    docker_archive(tmp_path / "ours.tar", image, reference="me/x:1")
    skopeo(tmp_path, f"docker-archive:{tmp_path}/ours.tar:me/x:1", f"docker-archive:{tmp_path}/theirs.tar:me/y:2")
    with closing(open_docker_archive(tmp_path / "theirs.tar", reference="me/y:2")) as source:
        config, layer = read_all(source)
    assert gzip.decompress(read_all(image)[1]) in (layer, gzip.decompress(layer) if layer[:2] == b"\x1f\x8b" else layer)
    assert json.loads(config)["rootfs"] == json.loads(read_all(image)[0])["rootfs"]
