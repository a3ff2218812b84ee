"""A qcow2 image that can be read at any place: tables first, then only what is allocated, in the order of the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from imagekit.base.units import KIB, MIB
from imagekit.formats.qcow2 import Qcow2Header, parse_header
from imagekit.stream.base import DecodedDisk, DecodeLimits, DiskWriter, Milestones, RandomReader
from imagekit.stream.inflate import ClusterInflater
from imagekit.stream.qcow2_assembly import Assembly, truncated
from imagekit.stream.qcow2_header import read_safe_header
from imagekit.stream.qcow2_mapping import Run

_HEAD_BYTES = 64 * KIB
_READ_BYTES = 2 * MIB
# To read a little too much is cheaper than another call, and far cheaper than another request.
_GAP_BYTES = 64 * KIB

Content = TypeVar("Content", bytes, memoryview)


def decode_qcow2_random(reader: RandomReader, writer: DiskWriter, *, limits: DecodeLimits, milestones: Milestones) -> DecodedDisk:
    """Write the disk in a qcow2 file.

    Raises:
        ImageError: The image is unsafe, damaged or not qcow2; nothing was written when its header says so.
        VerificationError: The file is shorter than its tables say (``TruncatedStream``).
        NoSpaceError: The disk does not fit; nothing was written when its size says so.
    """
    header = _read_header(reader, limits)
    writer.begin(header.virtual_size_bytes)
    with ClusterInflater(header, writer) as inflater:
        assembly = Assembly(header, writer, inflater, limits=limits)
        assembly.ownership.extend(reader.size_bytes)
        _take_tables(assembly, reader)
        for stretch in _stretches(_contents(assembly, start_bytes=milestones.start_bytes), reader):
            if milestones.is_due():
                inflater.finish()
                milestones.reach(stretch.start)
            view = memoryview(reader.read_at(stretch.start, stretch.end - stretch.start))
            for part in stretch.parts:
                content = view[part.run.host - stretch.start : part.run.end - stretch.start]
                _take_part(assembly, part, content, reader=reader)
        return assembly.finish(reader.size_bytes)


class _Part(NamedTuple):
    run: Run
    is_compressed: bool


class _Stretch(NamedTuple):
    start: int
    end: int
    parts: list[_Part]


def _read_header(reader: RandomReader, limits: DecodeLimits) -> Qcow2Header:
    head = reader.read_at(0, min(_HEAD_BYTES, reader.size_bytes))
    cluster_bytes = parse_header(head).cluster_size_bytes
    if cluster_bytes > len(head):
        head = reader.read_at(0, min(cluster_bytes, reader.size_bytes))
    return read_safe_header(head, file_size_bytes=reader.size_bytes, limits=limits)


def _take_tables(assembly: Assembly, reader: RandomReader) -> None:
    for queue, add in ((assembly.l1, assembly.add_l1), (assembly.refcounts, assembly.add_refcounts)):
        while (run := queue.pop()) is not None:
            for piece in _cut(run):
                add(piece, _whole(reader.read_at(piece.host, piece.size_bytes), piece, reader))
    for stretch in _stretches(_tables(assembly), reader):
        view = memoryview(reader.read_at(stretch.start, stretch.end - stretch.start))
        for run, _ in stretch.parts:
            assembly.add_l2(run, _whole(view[run.host - stretch.start : run.end - stretch.start], run, reader))
    while (run := assembly.unused.pop_before(reader.size_bytes)) is not None:
        assembly.ownership.claim(run.host, run.size_bytes)


def _tables(assembly: Assembly) -> Iterator[_Part]:
    while (run := assembly.l2.pop()) is not None:
        yield _Part(run, False)


def _contents(assembly: Assembly, *, start_bytes: int) -> Iterator[_Part]:
    """Take data and compressed clusters, in one order, that of the file; what ends before ``start_bytes`` is only claimed."""
    data, compressed = assembly.data, assembly.compressed
    while data or compressed:
        is_compressed = compressed.next_host < data.next_host
        run = (compressed if is_compressed else data).pop()
        assert run is not None
        for piece in _cut(run):
            if piece.end > start_bytes:
                yield _Part(piece, is_compressed)
            elif is_compressed:
                assembly.ownership.claim_compressed(piece.host, piece.size_bytes)
            else:
                assembly.ownership.claim(piece.host, piece.size_bytes)


def _cut(run: Run) -> Iterator[Run]:
    for start in range(0, run.size_bytes, _READ_BYTES):
        yield Run(run.host + start, run.guest + start, min(_READ_BYTES, run.size_bytes - start))


def _stretches(parts: Iterable[_Part], reader: RandomReader) -> Iterator[_Stretch]:
    """Put neighbours together that are worth one call; the file's end cuts them."""
    start = end = 0
    together: list[_Part] = []
    for part in parts:
        run = part.run
        if run.host >= reader.size_bytes:
            raise truncated(reader.size_bytes, run.host)
        if together and (run.host > end + _GAP_BYTES or run.end - start > _READ_BYTES):
            yield _Stretch(start, min(end, reader.size_bytes), together)
            together = []
        if not together:
            start = end = run.host
        together.append(part)
        end = max(end, run.end)
    if together:
        yield _Stretch(start, min(end, reader.size_bytes), together)


def _take_part(assembly: Assembly, part: _Part, view: memoryview, *, reader: RandomReader) -> None:
    if part.is_compressed:
        assembly.inflate(part.run, view)
        return
    assembly.ownership.claim(part.run.host, part.run.size_bytes)
    assembly.write(part.run.guest, _whole(view, part.run, reader))


def _whole(content: Content, run: Run, reader: RandomReader) -> Content:
    if len(content) != run.size_bytes:
        raise truncated(reader.size_bytes, run.host)
    return content
