"""The docker daemon as a place for images, through docker-py.

Its API gives and takes whole archives of unknown order, so an image passes through one unlinked temporary file: the only
place where the disk is copied on the way.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from imagekit.base.errors import NetworkError, NotFoundError, ToolError, UsageError
from imagekit.base.files import require_free_bytes, translate_os_error
from imagekit.base.progress import Phase, Progress
from imagekit.base.units import MIB
from registrydisk.digest import Digest
from registrydisk.docker_archive import DockerArchiveSource, DockerArchiveWriter, docker_archive_source
from registrydisk.manifest import RawManifest
from registrydisk.oci_archive import ArchiveBlobWriter
from registrydisk.reference import ImageReference
from registrydisk.tar_index import TarIndex

if TYPE_CHECKING:
    from docker import DockerClient

_TIMEOUT_SECONDS = 900
_PIECE_BYTES = MIB


def open_daemon_source(reference: ImageReference, *, environment: Mapping[str, str], progress: Progress) -> DockerArchiveSource:
    """Return the image ``reference`` of the daemon that DOCKER_HOST or docker's context names.

    Raises:
        NotFoundError: The daemon has no such image.
        NetworkError: There is no daemon.
    """
    where = f"docker-daemon:{reference}"
    with _spool(environment) as spool:
        with _daemon(environment) as client, _translated(where):
            image = client.images.get(str(reference))
            require_free_bytes(_scratch_directory(environment), int(image.attrs["Size"]), purpose=f"save {where}")
            with progress.phase("save") as phase:
                for piece in image.save(chunk_size=_PIECE_BYTES):
                    spool.write(piece)
                    phase.advance(len(piece))
        spool.flush()
        index = TarIndex(os.dup(spool.fileno()), where=where)
    return docker_archive_source(index, reference="", where=where)


class DaemonTarget:
    """The daemon as a place for one image, which is loaded when its manifest is written."""

    def __init__(self, reference: ImageReference, *, environment: Mapping[str, str], progress: Progress) -> None:
        if reference.digest is not None:
            raise UsageError(f"docker-daemon:{reference} names a digest, which only the daemon can choose", hint="write NAME:TAG")
        self._where = f"docker-daemon:{reference}"
        self._progress = progress
        self._scratch = _scratch_directory(environment)
        with contextlib.ExitStack() as stack:
            self._client = stack.enter_context(_daemon(environment))
            self._spool = stack.enter_context(_spool(environment))
            self._writer = DockerArchiveWriter(self._spool.fileno(), reference=reference, where=self._where)
            self._held = stack.pop_all()

    def has_blob(self, digest: Digest) -> bool:
        return self._writer.has_blob(digest)

    def open_blob_writer(self, *, size_bytes: int | None = None) -> ArchiveBlobWriter:
        if size_bytes is not None:
            require_free_bytes(self._scratch, size_bytes, purpose=f"prepare {self._where}")
        return self._writer.open_blob_writer()

    def write_manifest(self, manifest: RawManifest, *, is_top: bool = True) -> None:
        self._writer.write_manifest(manifest, is_top=is_top)
        size_bytes = self._spool.seek(0, os.SEEK_END)
        with self._progress.phase("load", size_bytes) as phase, _translated(self._where):
            loaded = self._client.images.load(self._pieces(phase))  # type: ignore[arg-type]  # the stub knows no iterators
        if not loaded:
            raise ToolError(f"the docker daemon took the archive of {self._where}, but loaded no image")

    def close(self) -> None:
        self._held.close()

    def _pieces(self, phase: Phase) -> Iterator[bytes]:
        self._spool.seek(0)
        while piece := self._spool.read(_PIECE_BYTES):
            yield piece
            phase.advance(len(piece))


@contextlib.contextmanager
def _daemon(environment: Mapping[str, str]) -> Iterator[DockerClient]:
    import docker  # a third of a second that only this transport needs

    named = environment.get("DOCKER_HOST") or "the default host"
    try:
        # docker-py takes an empty mapping for none and reads the process environment instead.
        settings = dict(environment) or {"DOCKER_HOST": ""}
        client = docker.DockerClient.from_env(environment=settings, timeout=_TIMEOUT_SECONDS)
    except docker.errors.DockerException as error:
        hint = "start it, set DOCKER_HOST, or check that you may use its socket"
        raise NetworkError(f"cannot reach the docker daemon at {named}", hint=hint) from error
    with contextlib.closing(client):
        yield client


@contextlib.contextmanager
def _translated(where: str) -> Iterator[None]:
    """Turn docker-py's errors, and those of the HTTP library beneath, into ours."""
    import docker
    import requests

    try:
        yield
    except docker.errors.ImageNotFound as error:
        raise NotFoundError(f"the docker daemon has no image {where.partition(':')[2]}") from error
    except docker.errors.ImageLoadError as error:
        raise ToolError(f"the docker daemon could not load {where}: {str(error)[:500]}") from error
    except docker.errors.APIError as error:
        raise ToolError(f"the docker daemon refused {where}: {error.explanation or error}") from error
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise NetworkError(f"the connection to the docker daemon broke at {where}") from error
    except OSError as error:
        raise translate_os_error(error, doing=f"keep {where} in a temporary file") from error


@contextlib.contextmanager
def _spool(environment: Mapping[str, str]) -> Iterator[BinaryIO]:
    directory = _scratch_directory(environment)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"cannot make a temporary file in {directory}", hint="set TMPDIR to a directory with room for the image")
    with tempfile.TemporaryFile(dir=directory) as spool:
        yield spool


def _scratch_directory(environment: Mapping[str, str]) -> Path:
    """Return where big temporary files belong: /tmp is memory on many machines."""
    return Path(environment.get("TMPDIR") or "/var/tmp")  # noqa: S108 - the file has no name, so nobody can foresee it
