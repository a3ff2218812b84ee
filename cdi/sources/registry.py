"""A disk in a container image, wherever images are: a registry, a layout, an archive, the docker daemon."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from cdi.sources.base import OnBytes, OpenedSource
from imagekit.base.progress import Progress
from registrydisk.access import RegistryAccess
from registrydisk.labels import ANNOTATION_VIRTUAL_SIZE
from registrydisk.manifest import Platform
from registrydisk.payload import open_payload
from registrydisk.places import open_source
from registrydisk.reference import Location
from registrydisk.selection import read_config, select_manifest


@contextlib.contextmanager
def open_registry_source(
    location: Location, *, platform: Platform | None, access: RegistryAccess, progress: Progress, on_bytes: OnBytes
) -> Iterator[OpenedSource]:
    """Open the disk in the image at ``location``.

    The bytes are those of the file in the image; ``verify`` reads the layers to their end and checks every digest.

    Raises:
        ImageError: There is no image for the platform, or no disk in it, or something unsafe in the disk's place.
        VerificationError: A manifest or configuration is not what its digest says.
    """
    with open_source(location, access=access, progress=progress) as source:
        descriptor, manifest = select_manifest(source, platform=platform)
        config = read_config(source, manifest)
        with open_payload(source, manifest, config, on_bytes=on_bytes) as payload:
            yield OpenedSource(
                name=f"{payload.path} in {location}",
                open_stream=lambda: payload.stream,
                size_bytes=payload.size_bytes,
                fetch_bytes=sum(layer.size_bytes for layer in manifest.layers),
                announced_size_bytes=_announced_size_bytes(manifest.annotations),
                verify=payload.verify,
                manifest_digest=str(descriptor.digest),
                payload_path=payload.path,
            )


def _announced_size_bytes(annotations: Mapping[str, str]) -> int | None:
    """Return what the builder wrote down; it only ever makes an import fail earlier, so nonsense is ignored."""
    text = annotations.get(ANNOTATION_VIRTUAL_SIZE, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None
