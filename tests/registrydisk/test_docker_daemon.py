"""The docker daemon takes our images and gives them back, and its failures are told in our words."""

from __future__ import annotations

import gc
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from imagekit.base.errors import NetworkError, NotFoundError, ToolError, UsageError
from imagekit.base.progress import SilentProgress
from registrydisk.digest import Digest
from registrydisk.docker_archive import DockerArchiveTarget
from registrydisk.docker_daemon import DaemonTarget, open_daemon_source
from registrydisk.image_config import ImageConfig
from registrydisk.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Manifest, parse_manifest
from registrydisk.reference import ImageReference
from registrydisk.transfer import copy_image
from tests.registrydisk.samples import MemoryImage, layer_tar
from tests.registrydisk.test_archives import read_all, saved
from tests.support.services import RunningDocker

QUIET = SilentProgress()


def docker(daemon: RunningDocker, *arguments: str) -> str:
    ended = subprocess.run(["docker", "-H", daemon.host, *arguments], check=True, timeout=60, capture_output=True, text=True)
    return ended.stdout


def load(daemon: RunningDocker, image: MemoryImage, name: str, scratch: Path) -> None:
    environment = {"DOCKER_HOST": daemon.host, "TMPDIR": str(scratch)}
    with closing(DaemonTarget(ImageReference.parse(name), environment=environment, progress=QUIET)) as target:
        copy_image(image, target, platform=None, progress=QUIET)


def environment(daemon: RunningDocker, scratch: Path) -> dict[str, str]:
    return {"DOCKER_HOST": daemon.host, "TMPDIR": str(scratch)}


@pytest.mark.docker
@pytest.mark.parametrize("is_gzip", [True, False])
def test_there_and_back(docker_daemon: RunningDocker, tmp_path: Path, is_gzip: bool) -> None:
    image = MemoryImage()
    raw = image.add_image(b"disk" * 100_000, is_gzip=is_gzip)
    load(docker_daemon, image, "me/there:1", tmp_path)
    assert docker(docker_daemon, "image", "inspect", "--format", "{{.Id}}", "me/there:1").strip() == str(
        parse_manifest(raw).config.digest
    )
    source = open_daemon_source(
        ImageReference.parse("me/there:1"), environment=environment(docker_daemon, tmp_path), progress=QUIET
    )
    with closing(source):
        config, layer = read_all(source)
    assert config == image.blobs[parse_manifest(raw).config.digest]
    assert Digest.of(layer) == Digest.of(layer_tar(b"disk" * 100_000))
    assert not list(tmp_path.iterdir())


@pytest.mark.docker
def test_docker_loads_our_archive_and_runs_nothing(docker_daemon: RunningDocker, tmp_path: Path) -> None:
    image = MemoryImage()
    image.add_image(b"disk")
    with closing(DockerArchiveTarget(tmp_path / "x.tar", reference="me/loaded:2")) as target:
        copy_image(image, target, platform=None, progress=QUIET)
    assert "me/loaded:2" in docker(docker_daemon, "load", "-i", str(tmp_path / "x.tar"))


@pytest.mark.docker
def test_equal_layers_of_old_archives(docker_daemon: RunningDocker, tmp_path: Path) -> None:
    """Docker saves a layer that an image has twice as a link."""
    layer = layer_tar(b"twice")
    config = ImageConfig(architecture="amd64", os="linux", diff_ids=(Digest.of(layer),) * 2).to_bytes()
    entry = {"Config": "c.json", "RepoTags": ["me/twice:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}
    path = saved(tmp_path / "x.tar", [entry], **{"c.json": config, "a/layer.tar": layer, "b/layer.tar": layer})
    docker(docker_daemon, "load", "-q", "-i", str(path))
    source = open_daemon_source(
        ImageReference.parse("me/twice:1"), environment=environment(docker_daemon, tmp_path), progress=QUIET
    )
    with closing(source):
        assert read_all(source)[1:] == [layer, layer]


@pytest.mark.docker
def test_missing_image(docker_daemon: RunningDocker, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="has no image"):
        open_daemon_source(ImageReference.parse("me/missing:1"), environment=environment(docker_daemon, tmp_path), progress=QUIET)


@pytest.mark.docker
def test_failure_in_the_stream_is_raised(docker_daemon: RunningDocker, tmp_path: Path) -> None:
    """Docker answers 200 to an image whose layer is not what its configuration says."""
    image = MemoryImage()
    config = image.add_blob(ImageConfig(architecture="amd64", os="linux", diff_ids=(Digest.of(b"other"),)).to_bytes(), OCI_CONFIG)
    layer = image.add_blob(layer_tar(b"x"), OCI_LAYER)
    image.add_manifest(Manifest(media_type=OCI_MANIFEST, config=config, layers=(layer,)).to_raw())
    with pytest.raises(ToolError, match="the docker daemon could not load"):
        load(docker_daemon, image, "me/bad:1", tmp_path)


@pytest.mark.docker
def test_images_that_stop_half_way_are_not_loaded(docker_daemon: RunningDocker, tmp_path: Path) -> None:
    target = DaemonTarget(ImageReference.parse("me/half:1"), environment=environment(docker_daemon, tmp_path), progress=QUIET)
    with closing(target):
        writer = target.open_blob_writer(size_bytes=4)
        writer.write(b"half")
        writer.commit(Digest.of(b"half"))
        assert target.has_blob(Digest.of(b"half"))
    assert "me/half" not in docker(docker_daemon, "images")


@pytest.fixture
def _docker_py_garbage() -> Iterator[None]:
    """docker-py leaves sockets that it could not connect to the garbage collector; they are not ours to close."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.network
@pytest.mark.usefixtures("_docker_py_garbage")
def test_no_daemon(tmp_path: Path) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/missing.sock", "TMPDIR": str(tmp_path)}
    with pytest.raises(NetworkError, match="cannot reach the docker daemon at unix://") as caught:
        open_daemon_source(ImageReference.parse("x"), environment=nowhere, progress=QUIET)
    assert "DOCKER_HOST" in caught.value.hint
    with pytest.raises(NetworkError):
        DaemonTarget(ImageReference.parse("x"), environment=nowhere, progress=QUIET)


def test_digest_as_a_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names a digest"):
        DaemonTarget(ImageReference.parse(f"x@{Digest.of(b'')}"), environment={}, progress=QUIET)


@pytest.mark.docker
def test_no_place_for_temporary_files(docker_daemon: RunningDocker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot make a temporary file") as caught:
        DaemonTarget(ImageReference.parse("x"), environment=environment(docker_daemon, tmp_path / "missing"), progress=QUIET)
    assert "TMPDIR" in caught.value.hint
