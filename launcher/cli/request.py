"""From the words of the command line to a RunRequest."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagekit.base.errors import UsageError
from imagekit.base.units import parse_size
from imagekit.image import DiskFormat
from launcher.accelerator import AcceleratorChoice
from launcher.disks import is_image
from launcher.machine import RunRequest
from launcher.spec import Bus, Firmware, Network, NetworkKind, PortForward
from registrydisk.access import RegistryAccess
from registrydisk.manifest import Platform

_FORWARD = re.compile(r"(?:(?P<address>[0-9.]+):)?(?P<host>\d{1,5}):(?P<guest>\d{1,5})(?:/(?P<protocol>tcp|udp))?")


def read_request(source: str, *, access: RegistryAccess, options: Mapping[str, Any], environment: Mapping[str, str]) -> RunRequest:
    """Return what the options ask for.

    Raises:
        UsageError: A value is not what its option takes.
    """
    import platformdirs

    _require_meaning(source, options)
    forwards = tuple(parse_forward(text) for text in options["forwards"])
    kind = NetworkKind(options["network"])
    if forwards and kind is not NetworkKind.USER:
        raise UsageError("ports can only be forwarded on the network 'user'", hint="leave out --network none, or --forward")
    return RunRequest(
        source=source,
        memory_bytes=parse_size(options["memory"]),
        cpus=options["cpus"],
        network=Network(kind=kind, forwards=forwards),
        firmware=Firmware(options["firmware"]),
        bus=Bus(options["bus"]),
        accelerator=AcceleratorChoice(options["accelerator"]),
        console=options["console"],
        disk_format=DiskFormat(options["disk_format"]) if options["disk_format"] else None,
        platform=Platform.parse(options["platform"]) if options["platform"] else None,
        persist=options["persist"],
        seed=options["seed"],
        grace_seconds=options["grace"],
        cache=Path(environment.get("IMAGEKIT_CACHE") or platformdirs.user_cache_dir("imagekit")) / "launcher",
        access=access,
    )


def _require_meaning(source: str, options: Mapping[str, Any]) -> None:
    """Refuse what means nothing, and what would be ignored: an option of images beside a volume, or the other way round."""
    if not source:
        raise UsageError("the name of the volume is empty")
    if is_image(source):
        if options["disk_format"]:
            raise UsageError("--format is for volumes: the disk in an image is inspected")
    elif options["persist"] or options["platform"]:
        hint = "a volume keeps what the guest writes; an image begins with its transport, like docker:// or oci:"
        raise UsageError(f"--persist and --platform are for images, and {source!r} is a volume", hint=hint)
    if not math.isfinite(options["grace"]):
        raise UsageError(f"--grace {options['grace']} is not a number of seconds")


def parse_forward(text: str) -> PortForward:
    """Return the forward that ``text`` writes: ``8080:80``, ``0.0.0.0:8080:80`` or ``5353:53/udp``.

    Raises:
        UsageError: It is none.
    """
    match = _FORWARD.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a port forward", hint="write PORT:GUEST, like 8080:80, or ADDRESS:PORT:GUEST")
    try:
        return PortForward(
            host_address=match["address"] or "127.0.0.1",
            host_port=int(match["host"]),
            guest_port=int(match["guest"]),
            protocol=match["protocol"] or "tcp",
        )
    except ValueError as error:
        raise UsageError(f"{text!r} is not a port forward: {error}") from error
