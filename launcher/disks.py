"""From what the user names to a disk of the machine.

A volume is booted as it is: a directory that holds ``disk.img`` (or ``disk/NAME.img``), a block device, or a file. A
RegistryDisk is fetched into the cache, verified, and booted on an overlay, so that the image stays what its digest
says. The disk in a directory and a block device are raw by contract and never looked at: a guest writes every byte of
them, and could make a raw disk look like another format.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

from imagekit.base.errors import ImageError, NotFoundError, UsageError
from imagekit.base.progress import Progress
from imagekit.image import Compression, DiskFormat
from imagekit.inspection import inspect_file, require_safe
from imagekit.qemu_img import create_overlay
from launcher.locks import name_lock
from launcher.spec import GUEST_FORMATS, Base, Bus, Disk
from registrydisk.access import RegistryAccess
from registrydisk.manifest import Platform
from registrydisk.payload import extract_payload
from registrydisk.places import open_source
from registrydisk.reference import Location, Transport
from registrydisk.selection import read_config, select_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDisk:
    """A disk that lies on this machine, and what it is read as; ``is_template`` asks for an overlay."""

    path: Path
    format: DiskFormat
    is_block_device: bool = False
    is_template: bool = False


def is_image(source: str) -> bool:
    """Tell whether ``source`` names a container image rather than a path: it begins with a transport."""
    scheme, colon, _ = source.partition(":")
    return bool(colon) and scheme in set(Transport)


def find_volume(path: Path, *, disk_format: DiskFormat | None = None) -> FoundDisk:
    """Return the disk of the volume ``path``.

    Args:
        disk_format: What a file or block device is read as; a file is inspected when it is not given.

    Raises:
        NotFoundError: There is no disk.
        UsageError: The directory holds several disks or a link in place of ``disk``, or its disk is asked to be something
            else than raw.
        ImageError: The file is unsafe, or of a format that a machine cannot boot.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        hint = "write the transport before an image's name: docker://registry/name:tag"
        raise NotFoundError(f"there is no volume {path}", hint=hint) from error
    path = path.resolve()
    if stat.S_ISDIR(mode):
        if disk_format not in (None, DiskFormat.RAW):
            raise UsageError("the disk in a directory is always raw", hint="name the file itself to boot it as something else")
        return FoundDisk(path=_disk_in(path), format=DiskFormat.RAW)
    if stat.S_ISBLK(mode):
        return FoundDisk(path=path, format=_safe_format(path, disk_format or DiskFormat.RAW), is_block_device=True)
    return FoundDisk(path=path, format=_safe_format(path, disk_format) if disk_format else _inspected_format(path))


def fetch_image(
    location: Location, *, cache: Path, access: RegistryAccess, platform: Platform | None, progress: Progress
) -> FoundDisk:
    """Return the disk of an image, fetched into ``cache`` unless a run before did that.

    Raises:
        ImagekitError: As the registry, the image and its disk may fail.
    """
    with open_source(location, access=access, progress=progress) as source:
        descriptor, manifest = select_manifest(source, platform=platform)
        target = cache / "disks" / descriptor.digest.encoded
        target.parent.mkdir(parents=True, exist_ok=True)
        with name_lock(target):  # of two runs, one fetches
            if not target.exists():
                extract_payload(source, manifest, read_config(source, manifest), target=target, progress=progress)
    return FoundDisk(path=target, format=_inspected_format(target), is_template=True)


def machine_disk(found: FoundDisk, *, bus: Bus, overlay: Path, is_ephemeral: bool) -> Disk:
    """Return the disk as the machine gets it; a template gets an overlay.

    Args:
        overlay: Where the overlay of a template is; made unless it is there already.
        is_ephemeral: Whether the overlay is thrown away afterwards.
    """
    if found.format is DiskFormat.ISO:
        return Disk(path=str(found.path), format=found.format, bus=Bus.SATA, is_cdrom=True, boot_order=1)
    if not found.is_template:
        return Disk(path=str(found.path), format=found.format, bus=bus, is_block_device=found.is_block_device, boot_order=1)
    with name_lock(overlay):
        if not overlay.exists():
            create_overlay(overlay, backing=found.path, backing_format=found.format)
    base = Base(path=str(found.path), format=found.format)
    return Disk(path=str(overlay), format=DiskFormat.QCOW2, base=base, bus=bus, is_ephemeral=is_ephemeral, boot_order=1)


def _disk_in(directory: Path) -> Path:
    """Return the one disk of a volume with a file system."""
    if (directory / "disk.img").exists():
        return directory / "disk.img"
    if (directory / "disk").is_symlink():  # whoever filled the volume would choose a file outside of it
        raise UsageError(f"{directory / 'disk'} is a symbolic link", hint="name the file itself: links are not followed")
    found = sorted((directory / "disk").glob("*.img"))
    if not found:
        raise NotFoundError(
            f"there is no disk.img and no disk/*.img in {directory}", hint="fill the volume with `cdi import` first"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:5])
        raise UsageError(f"there are {len(found)} disks in {directory / 'disk'}: {names}", hint="name the file itself")
    return found[0]


def _safe_format(path: Path, disk_format: DiskFormat) -> DiskFormat:
    """Return ``disk_format``; a qcow2 header, which can name other files of this machine, is inspected all the same."""
    if disk_format is DiskFormat.QCOW2:
        require_safe(inspect_file(path), what=str(path))
    return disk_format


def _inspected_format(path: Path) -> DiskFormat:
    info = inspect_file(path)
    require_safe(info, what=str(path))
    if info.compression is not Compression.NONE:
        hint = "import it into a volume first: cdi import FILE VOLUME"
        raise ImageError(f"{path} is compressed with {info.compression.value}", reason="UnsupportedFormat", hint=hint)
    if info.format not in GUEST_FORMATS:
        hint = "convert it first: imagekit convert FILE disk.qcow2"
        raise ImageError(
            f"{path} is a {info.format.value} image, which a machine cannot boot", reason="UnsupportedFormat", hint=hint
        )
    return info.format
