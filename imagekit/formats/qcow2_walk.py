"""The deep look at a qcow2 image: every L2 table, and whether each cluster lies where it may.

An image may map no byte outside its file, and no host cluster twice: without internal snapshots there is no honest
reason for it, and it would make a small file into an endless disk. Time is linear in the tables (12.5 MiB of them for
100 GiB of data in 64 KiB clusters); memory is one byte for each host cluster and eight for each compressed one.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass

from imagekit.base.readers import RandomReader
from imagekit.base.units import GIB
from imagekit.formats.qcow2 import COMPRESSED_FLAG, OFFSET_MASK, ZERO_FLAG, Qcow2Header
from imagekit.formats.tables import read_table
from imagekit.image import Finding

_MOST_L2_BYTES = GIB  # 8 TiB of data in 64 KiB clusters
_MOST_HOST_CLUSTERS = 1 << 28  # 16 TiB of file in 64 KiB clusters
_REGION_BITS = 22  # compressed clusters are compared within 4 MiB of the file at a time
_MOST_STARTS_IN_REGION = (1 << _REGION_BITS) // 8  # no codec makes a cluster of fewer than eight bytes

_FREE, _TAKEN, _COMPRESSED = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCensus:
    """What the tables map: clusters with plain and with compressed content, bytes with any, and what is wrong."""

    plain_clusters: int
    compressed_clusters: int
    allocated_bytes: int
    findings: tuple[Finding, ...]

    @property
    def compressed_share(self) -> float | None:
        """Share of the clusters with content that are compressed; None when no cluster has any."""
        clusters = self.plain_clusters + self.compressed_clusters
        return self.compressed_clusters / clusters if clusters else None


def read_entries(reader: RandomReader, *, offset_bytes: int, entries: int) -> array[int]:
    """Return 64-bit table entries, as many as the file has."""
    return read_table(reader, offset_bytes=offset_bytes, entries=entries, entry_bytes=8, byte_order="big")


def walk_tables(header: Qcow2Header, reader: RandomReader) -> ClusterCensus:
    """Look at every L2 table in file order; the header must have no findings of its own."""
    walk = _Walk(header, reader)
    walk.run()
    return ClusterCensus(
        plain_clusters=walk.plain_clusters,
        compressed_clusters=walk.compressed_clusters,
        allocated_bytes=walk.allocated_bytes,
        findings=tuple(walk.findings.values()),
    )


class _Walk:
    """One walk: host clusters seen so far, counts, and the first finding of each rule."""

    def __init__(self, header: Qcow2Header, reader: RandomReader) -> None:
        self.findings: dict[str, Finding] = {}
        self.plain_clusters = self.compressed_clusters = self.allocated_bytes = 0
        self._header = header
        self._reader = reader
        self._size_bytes = reader.size_bytes
        self._bits = header.cluster_bits
        self._not_plain = COMPRESSED_FLAG if header.version == 2 else COMPRESSED_FLAG | ZERO_FLAG
        self._claims = bytearray()
        self._starts: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))

    def run(self) -> None:
        host_clusters = -(-self._size_bytes // self._header.cluster_size_bytes)
        if host_clusters > _MOST_HOST_CLUSTERS:
            self._object("cluster-count", f"its file has {host_clusters} clusters, more than {_MOST_HOST_CLUSTERS}")
            return
        self._claims = bytearray(host_clusters)
        self._claim_metadata()
        l1 = read_entries(self._reader, offset_bytes=self._header.l1_offset_bytes, entries=self._header.l1_entries)
        tables = sorted((entry & OFFSET_MASK, index) for index, entry in enumerate(l1) if entry & OFFSET_MASK)
        if len(tables) * self._header.cluster_size_bytes > _MOST_L2_BYTES:
            self._object("l2-table", f"it has {len(tables)} L2 tables, more than are looked at")
            return
        for place, index in tables:
            if self._claim([place], what="L2 table"):
                self._visit_table(place, index)
        self._compare_starts()

    def _object(self, rule: str, message: str) -> None:
        self.findings.setdefault(rule, Finding(rule=rule, message=message))

    def _claim_metadata(self) -> None:
        header = self._header
        l1_clusters = -(-header.l1_entries * 8 // header.cluster_size_bytes)
        for offset_bytes, clusters in (
            (0, 1),
            (header.l1_offset_bytes, l1_clusters),
            (header.refcount_table_offset_bytes, header.refcount_table_clusters),
        ):
            first = offset_bytes >> self._bits
            self._claims[first : first + clusters] = bytes([_TAKEN]) * len(self._claims[first : first + clusters])

    def _claim(self, places: list[int], *, what: str) -> bool:
        """Take host clusters for their one use; return whether all could be taken."""
        claims, bits, low_bits = self._claims, self._bits, self._header.cluster_size_bytes - 1
        is_sound = True
        for place in places:
            index = place >> bits
            if place & low_bits:
                self._object("cluster-alignment", f"the {what} at {place} is not aligned to a cluster")
            elif index >= len(claims):
                self._object("outside-file", f"the {what} at {place} is outside the file of {self._size_bytes} bytes")
            elif claims[index]:
                self._object("cluster-overlap", f"the {what} at {place} is in a host cluster that has another use")
            else:
                claims[index] = _TAKEN
                continue
            is_sound = False
        return is_sound

    def _visit_table(self, place: int, index: int) -> None:
        table = read_entries(self._reader, offset_bytes=place, entries=self._header.cluster_size_bytes // 8)
        if len(table) * 8 < self._header.cluster_size_bytes:
            self._object("outside-file", f"the L2 table at {place} ends outside the file")
            return
        if not any(table):
            return
        entries = table[::2] if self._header.has_extended_l2 else table
        self._claim(
            [entry & OFFSET_MASK for entry in entries if entry & OFFSET_MASK and not entry & COMPRESSED_FLAG], what="data cluster"
        )
        compressed = [entry for entry in entries if entry & COMPRESSED_FLAG]
        if compressed:
            self._claim_compressed(compressed)
        if self._size_bytes % self._header.cluster_size_bytes and not self._header.has_extended_l2:
            self._require_whole(entries)
        self._count(table, index)

    def _require_whole(self, entries: array[int]) -> None:
        """Object to data that a cut file has lost, which QEMU would read as zeros; only the disk's last cluster may be short."""
        header = self._header
        last = self._size_bytes >> self._bits
        least_bytes = header.virtual_size_bytes % header.cluster_size_bytes or header.cluster_size_bytes
        if self._size_bytes % header.cluster_size_bytes >= least_bytes:
            return
        if any(entry & OFFSET_MASK == last << self._bits and not entry & self._not_plain for entry in entries):
            self._object("outside-file", f"the data cluster at {last << self._bits} ends outside the file")

    def _count(self, table: array[int], index: int) -> None:
        """Count what a table maps within the guest's disk; its last cluster may reach over the end."""
        header = self._header
        words = header.l2_entry_bytes // 8
        whole_clusters, tail_bytes = divmod(header.virtual_size_bytes, header.cluster_size_bytes)
        whole = max(0, min(whole_clusters - index * header.l2_entries, header.l2_entries))
        self._count_whole(table[: whole * words])
        if tail_bytes and index == whole_clusters // header.l2_entries:
            entry, *bitmaps = table[whole * words : (whole + 1) * words]
            self._count_cluster(entry, *bitmaps, size_bytes=tail_bytes)

    def _count_whole(self, table: array[int]) -> None:
        header = self._header
        if header.has_extended_l2:
            for entry, bitmap in zip(table[::2], table[1::2], strict=True):
                self._count_cluster(entry, bitmap, size_bytes=header.cluster_size_bytes)
            return
        # Comprehensions, as there may be millions of entries.
        plain = sum([1 for entry in table if entry & OFFSET_MASK and not entry & self._not_plain])
        compressed = sum([1 for entry in table if entry & COMPRESSED_FLAG])
        self.plain_clusters += plain
        self.compressed_clusters += compressed
        self.allocated_bytes += (plain + compressed) * header.cluster_size_bytes

    def _count_cluster(self, entry: int, bitmap: int = 0, *, size_bytes: int) -> None:
        """Count one cluster of which the guest's disk has ``size_bytes``."""
        header = self._header
        if entry & COMPRESSED_FLAG:
            self.compressed_clusters += 1
            self.allocated_bytes += size_bytes
        elif header.has_extended_l2:
            part_bytes = header.subcluster_size_bytes
            parts = [max(0, min(part_bytes, size_bytes - number * part_bytes)) for number in range(32) if bitmap >> number & 1]
            self.plain_clusters += 1 if parts else 0
            self.allocated_bytes += sum(parts)
        elif entry & OFFSET_MASK and not (header.version == 3 and entry & ZERO_FLAG):
            self.plain_clusters += 1
            self.allocated_bytes += size_bytes

    def _claim_compressed(self, compressed: list[int]) -> None:
        inside_bytes = -(-self._size_bytes // 512) * 512
        claims, bits, starts = self._claims, self._bits, self._starts
        offset_mask = (1 << (62 - (bits - 8))) - 1
        surely_inside = inside_bytes - 3 * self._header.cluster_size_bytes
        for entry in compressed:
            start = entry & offset_mask
            if start > surely_inside and sum(self._header.compressed_range(entry)) > inside_bytes:
                self._object("outside-file", f"the compressed cluster at {start} is outside the file of {self._size_bytes} bytes")
                continue
            index = start >> bits
            if claims[index] == _TAKEN:
                self._object("cluster-overlap", f"the compressed cluster at {start} is in a host cluster that has another use")
            claims[index] = _COMPRESSED
            starts[start >> _REGION_BITS].append(start)

    def _compare_starts(self) -> None:
        for starts in self._starts.values():
            if len(starts) > _MOST_STARTS_IN_REGION or len(set(starts)) < len(starts):
                self._object("cluster-overlap", f"several compressed clusters are the same bytes near {starts[0]}")
