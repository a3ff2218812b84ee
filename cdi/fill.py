"""Fills a target by the route that was planned, and publishes it; or takes everything back."""

from __future__ import annotations

import os

from cdi.checkpoints import Checkpoints
from cdi.conversion import fill_by_conversion
from cdi.filling import Filled, Filling, open_volume_writer
from cdi.journal import JournalHeader
from cdi.plan import Route, rounded_up
from cdi.target import open_spill
from cdi.volume_writer import ResumableWriter
from imagekit.base.errors import ImagekitError, NoSpaceError
from imagekit.base.units import format_size
from imagekit.stream import decode_random, decode_stream


def fill(filling: Filling) -> Filled:
    """Write the disk, verify the source to its end, and make the disk appear.

    Raises:
        ImagekitError: Anything failed; the target is as ``Target.abandon`` leaves it.
    """
    if filling.plan.is_resumable:
        return _fill_with_journal(filling)
    filling.target.prepare(keep=False)
    try:
        filled = fill_by_conversion(filling) if filling.plan.route is Route.CONVERT else _fill_at_once(filling)
        filling.target.publish()
    except BaseException:
        filling.target.abandon(keep=False)
        raise
    return filled


def _fill_at_once(filling: Filling) -> Filled:
    source, plan = filling.source, filling.plan
    with open_volume_writer(filling) as writer:
        if plan.route is Route.RANDOM:
            assert source.opened.reader is not None
            decoded = decode_random(plan.format, source.opened.reader, writer)
            source.opened.verify()
        else:
            decoded = decode_stream(
                plan.format,
                source.image,
                writer,
                size_bytes=source.image_size_bytes,
                open_spill=lambda: open_spill(filling.target),
            )
            source.verify()
        writer.finish()
    return Filled(
        virtual_size_bytes=decoded.virtual_size_bytes,
        disk_size_bytes=writer.disk_size_bytes,
        written_bytes=decoded.written_bytes,
    )


def _fill_with_journal(filling: Filling) -> Filled:
    """Go on where an earlier run of the same job ended, and note how far this one is."""
    target, source, journal = filling.target, filling.source.opened, filling.target.journal
    assert journal is not None
    assert source.reader is not None
    header = _journal_header(filling)
    done_bytes = journal.read_done_bytes(header) if filling.job.resume else 0
    target.prepare(keep=done_bytes > 0)
    if done_bytes:
        filling.meter.resume_at(done_bytes)
        filling.progress.note(f"resuming at {format_size(done_bytes)}")
    writer = _resumable_writer(filling, header)
    checkpoints = Checkpoints(journal, writer, start_bytes=done_bytes, clock=filling.clock)
    try:
        journal.start(header, done_bytes=done_bytes)
        decoded = decode_random(filling.plan.format, source.reader, writer, milestones=checkpoints)
        source.verify()
        writer.finish()
        target.publish()
    except BaseException as error:
        target.abandon(keep=_keeps(filling, checkpoints, error))
        raise
    return Filled(
        virtual_size_bytes=decoded.virtual_size_bytes,
        disk_size_bytes=writer.disk_size_bytes,
        written_bytes=decoded.written_bytes,
        resumed_bytes=done_bytes,
    )


def _journal_header(filling: Filling) -> JournalHeader:
    seen = filling.source.observation
    assert seen.virtual_size_bytes is not None, "what can be read at any place tells its size at once"
    return JournalHeader(
        identity=seen.identity,
        format=seen.format.value,
        disk_size_bytes=max(rounded_up(seen.virtual_size_bytes), filling.plan.least_size_bytes),
        partial_inode=os.fstat(filling.target.descriptor).st_ino,
    )


def _resumable_writer(filling: Filling, header: JournalHeader) -> ResumableWriter:
    return ResumableWriter(
        filling.target.descriptor,
        capacity_bytes=filling.plan.capacity_bytes,
        disk_size_bytes=header.disk_size_bytes,
        preallocate=filling.job.preallocate,
    )


def _keeps(filling: Filling, checkpoints: Checkpoints, error: BaseException) -> bool:
    """Tell whether the same job may succeed later, and there is something from which it goes on."""
    is_interrupted = not isinstance(error, Exception)
    is_passing = isinstance(error, NoSpaceError) or (isinstance(error, ImagekitError) and error.temporary)
    if not is_interrupted and not is_passing:
        return False
    if checkpoints.noted_bytes:
        filling.progress.note(f"{format_size(checkpoints.noted_bytes)} are kept: the same command goes on from there")
    return checkpoints.noted_bytes > 0
