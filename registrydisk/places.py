"""From a Location to the place itself: the one list of transports.

Imports are local to each branch: a command that copies between two files must not pay for HTTP or docker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import assert_never

from imagekit.base.progress import Progress
from registrydisk.access import RegistryAccess
from registrydisk.reference import Location, Transport
from registrydisk.store import ImageSource, ImageTarget


@contextlib.contextmanager
def open_source(location: Location, *, access: RegistryAccess, progress: Progress) -> Iterator[ImageSource]:
    """Open the image at ``location`` for reading.

    Raises:
        NotFoundError: There is none.
        UsageError: The place holds several and no tag chooses one.
    """
    with contextlib.closing(_source(location, access, progress)) as source:
        yield source


@contextlib.contextmanager
def open_target(location: Location, *, access: RegistryAccess, progress: Progress) -> Iterator[ImageTarget]:
    """Open ``location`` for writing one image; nothing is there before its top manifest is written."""
    with contextlib.closing(_target(location, access, progress)) as target:
        yield target


def _source(location: Location, access: RegistryAccess, progress: Progress) -> ImageSource:
    match location.transport:
        case Transport.DOCKER:
            from registrydisk.remote import open_remote_source

            assert location.reference is not None
            return open_remote_source(location.reference, access=access, progress=progress)
        case Transport.OCI:
            from registrydisk.layout import open_layout_source

            assert location.path is not None
            return open_layout_source(location.path, tag=location.tag)
        case Transport.OCI_ARCHIVE:
            from registrydisk.oci_archive import open_oci_archive

            assert location.path is not None
            return open_oci_archive(location.path, tag=location.tag)
        case Transport.DOCKER_ARCHIVE:
            from registrydisk.docker_archive import open_docker_archive

            assert location.path is not None
            return open_docker_archive(location.path, reference=location.tag)
        case Transport.DOCKER_DAEMON:
            from registrydisk.docker_daemon import open_daemon_source

            assert location.reference is not None
            return open_daemon_source(location.reference, environment=access.environment, progress=progress)
    assert_never(location.transport)


def _target(location: Location, access: RegistryAccess, progress: Progress) -> ImageTarget:
    match location.transport:
        case Transport.DOCKER:
            from registrydisk.remote import open_remote_target

            assert location.reference is not None
            return open_remote_target(location.reference, access=access, progress=progress)
        case Transport.OCI:
            from registrydisk.layout import LayoutTarget

            assert location.path is not None
            return LayoutTarget(location.path, tag=location.tag)
        case Transport.OCI_ARCHIVE:
            from registrydisk.oci_archive import OciArchiveTarget

            assert location.path is not None
            return OciArchiveTarget(location.path, tag=location.tag)
        case Transport.DOCKER_ARCHIVE:
            from registrydisk.docker_archive import DockerArchiveTarget

            assert location.path is not None
            return DockerArchiveTarget(location.path, reference=location.tag)
        case Transport.DOCKER_DAEMON:
            from registrydisk.docker_daemon import DaemonTarget

            assert location.reference is not None
            return DaemonTarget(location.reference, environment=access.environment, progress=progress)
    assert_never(location.transport)
