"""What the routes from a source into a target have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from cdi.job import ImportJob
from cdi.meter import Meter
from cdi.plan import Plan
from cdi.probe import ProbedSource
from cdi.target import Target, TargetKind
from cdi.volume_writer import VolumeWriter
from imagekit.base.clock import Clock
from imagekit.base.progress import Progress
from imagekit.stream import FileWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Filling:
    """One import in the middle: everything that a route needs."""

    plan: Plan
    job: ImportJob
    source: ProbedSource
    target: Target
    meter: Meter
    progress: Progress
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What a route wrote, and what of the source an earlier run had brought."""

    virtual_size_bytes: int
    disk_size_bytes: int
    written_bytes: int
    resumed_bytes: int = 0


@contextlib.contextmanager
def open_volume_writer(filling: Filling) -> Iterator[VolumeWriter]:
    """Open the writer that fills the target in one go."""
    target, plan = filling.target, filling.plan
    is_device = target.observe().kind is TargetKind.DEVICE
    with FileWriter(target.descriptor, is_device=is_device, capacity_bytes=plan.capacity_bytes) as writer:
        yield VolumeWriter(
            writer,
            descriptor=target.descriptor,
            least_size_bytes=plan.least_size_bytes,
            preallocate=filling.job.preallocate and not is_device,
        )
