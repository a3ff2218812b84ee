"""What the two qcow2 decoders share: tables become queues of runs, and runs become writes, each checked."""

from __future__ import annotations

from imagekit.base.errors import ImageError, VerificationError
from imagekit.base.units import KIB, format_size
from imagekit.formats.qcow2 import Qcow2Header
from imagekit.image import DiskFormat
from imagekit.stream.base import DecodedDisk, DecodeLimits, DiskWriter
from imagekit.stream.inflate import ClusterInflater
from imagekit.stream.qcow2_mapping import Run, RunQueue, l1_run, parse_l1, parse_l2, parse_refcount_table
from imagekit.stream.qcow2_ownership import Ownership

# A view of a few clusters would keep the megabytes around it in memory until it is written.
_COPIED_BYTES = 512 * KIB


class Assembly:
    """A disk that is put together from the runs of a qcow2 file.

    Attributes:
        l1: What is still to come of the L1 table; ``l2``, ``refcounts``: tables that are known by their place.
        data, compressed: What is known of the disk and still to come.
        unused: Places in the file that are known to hold nothing of the disk.
        ownership: What was claimed so far.
    """

    def __init__(self, header: Qcow2Header, writer: DiskWriter, inflater: ClusterInflater, *, limits: DecodeLimits) -> None:
        self.header = header
        self.ownership = Ownership(header.subcluster_size_bytes)
        self.l1, self.l2, self.refcounts = RunQueue(), RunQueue(), RunQueue()
        self.data, self.compressed, self.unused = RunQueue(), RunQueue(), RunQueue()
        self._writer = writer
        self._inflater = inflater
        self._limits = limits
        self._written_bytes = 0
        self.l1.add([l1_run(header)])
        refcount_table_bytes = header.refcount_table_clusters * header.cluster_size_bytes
        if refcount_table_bytes:
            self.refcounts.add([Run(header.refcount_table_offset_bytes, 0, refcount_table_bytes)])
        self.unused.add([Run(0, 0, header.cluster_size_bytes)])

    @property
    def has_tables_to_come(self) -> bool:
        """Whether some table that maps the disk was not seen yet."""
        return bool(self.l1 or self.l2)

    def add_l1(self, run: Run, table: bytes | memoryview) -> None:
        """Learn from a part of the L1 table."""
        self.ownership.claim(run.host, run.size_bytes)
        self.l2.add(parse_l1(self.header, table, table_offset_bytes=run.guest))
        self._require_memory()

    def add_l2(self, run: Run, table: bytes | memoryview) -> None:
        """Learn from an L2 table."""
        self.ownership.claim(run.host, run.size_bytes)
        runs = parse_l2(self.header, table, guest_bytes=run.guest)
        self.data.add(runs.data)
        self.compressed.add(runs.compressed)
        self.unused.add(runs.unused)
        self._require_memory()

    def add_refcounts(self, run: Run, table: bytes | memoryview) -> None:
        """Learn from a part of the refcount table where refcount blocks are."""
        self.ownership.claim(run.host, run.size_bytes)
        self.unused.add(parse_refcount_table(self.header, table))
        self._require_memory()

    def write(self, guest: int, content: bytes | memoryview) -> None:
        """Write data whose place in the file was claimed."""
        if isinstance(content, memoryview) and len(content) < _COPIED_BYTES:
            content = bytes(content)
        self._writer.write_at(guest, content)
        self._written_bytes += len(content)

    def inflate(self, run: Run, content: bytes | memoryview) -> None:
        """Claim, inflate and write a compressed cluster."""
        self.ownership.claim_compressed(run.host, run.size_bytes)
        self._inflater.add(run.guest, bytes(content))

    def finish(self, file_size_bytes: int) -> DecodedDisk:
        """Return what was written, once everything was.

        Raises:
            VerificationError: The file ended before something that its tables name.
        """
        for queue in (self.l1, self.l2, self.data, self.compressed):
            if queue:
                raise truncated(file_size_bytes, queue.next_host)
        self._inflater.finish()
        return DecodedDisk(
            format=DiskFormat.QCOW2,
            virtual_size_bytes=self.header.virtual_size_bytes,
            written_bytes=self._written_bytes + self._inflater.written_bytes,
        )

    def _require_memory(self) -> None:
        queues = (self.l2, self.data, self.compressed, self.unused)
        if sum(queue.waiting_bytes for queue in queues) > self._limits.mapping_bytes:
            raise ImageError(
                f"the qcow2 image is in too many fragments: its map needs more than {format_size(self._limits.mapping_bytes)}",
                hint="convert it with `qemu-img convert` first",
            )


def truncated(file_size_bytes: int, offset_bytes: int) -> VerificationError:
    """Return the error for a table, or a cluster that a table names, behind the end of the file."""
    return VerificationError(
        f"the qcow2 image ends at {file_size_bytes}, but its tables name a cluster at {offset_bytes}",
        reason="TruncatedStream",
        hint="fetch the image again",
    )
