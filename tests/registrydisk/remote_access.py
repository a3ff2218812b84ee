"""How the tests of the registry client reach their servers: no waiting, short patience, notes kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagekit.base.progress import SilentProgress
from registrydisk.access import Credential, HttpLimits, RegistryAccess
from registrydisk.reference import ImageReference
from registrydisk.remote import RemoteSource, RemoteTarget, open_remote_source, open_remote_target
from tests.support.fake_clock import FakeClock
from tests.support.fault_registry import PASSWORD, USER, FaultRegistry

CANARY = Credential(username=USER, password=PASSWORD)


class NotedProgress(SilentProgress):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


def patient(
    *, clock: FakeClock | None = None, environment: Mapping[str, str] | None = None, stall_seconds: float = 5.0, **options: Any
) -> RegistryAccess:
    """Return an access that reads no file of this machine and never really sleeps."""
    return RegistryAccess(
        limits=HttpLimits(connect_seconds=5.0, answer_seconds=stall_seconds, stall_seconds=stall_seconds, commit_seconds=10.0),
        clock=clock or FakeClock(),
        environment=environment or {},
        **{"system_directory": Path("/nonexistent"), **options},
    )


def reference(registry: FaultRegistry, name: str = "team/disk:v1") -> ImageReference:
    """Return an image's name in ``registry``."""
    return ImageReference.parse(f"{registry.host}/{name}")


def source(
    registry: FaultRegistry, name: str = "team/disk:v1", *, progress: NotedProgress | None = None, **options: Any
) -> RemoteSource:
    """Return a source over plain http."""
    access = options.pop("access", None) or patient(is_plain_http=True, **options)
    return open_remote_source(reference(registry, name), access=access, progress=progress or NotedProgress())


def target(
    registry: FaultRegistry, name: str = "team/disk:v1", *, progress: NotedProgress | None = None, **options: Any
) -> RemoteTarget:
    """Return a target over plain http."""
    access = options.pop("access", None) or patient(is_plain_http=True, **options)
    return open_remote_target(reference(registry, name), access=access, progress=progress or NotedProgress())
