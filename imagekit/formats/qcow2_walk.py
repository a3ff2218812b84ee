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
_ALLOCATED_SUBCLUSTERS = 0xFFFF_FFFF

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


def read_entries(reader: RandomReader, offset_bytes: int, entries: int) -> array[int]:
    """Return 64-bit table entries, as many as the file has."""
    return read_table(reader, offset_bytes, entries, entry_bytes=8, byte_order="big")


def walk_tables(header: Qcow2Header, reader: RandomReader) -> ClusterCensus:
    """Look at every L2 table in file order; the header must have no findings of its own."""
    walk = _Walk(header, reader)
    walk.run()
    return ClusterCensus(
        plain_clusters=walk.plain_clusters,
        compressed_clusters=walk.compressed_clusters,
        allocated_bytes=min(walk.allocated_bytes, header.virtual_size_bytes),
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
        self._claims = bytearray()
        self._starts: defaultdict[int, array[int]] = defaultdict(lambda: array("Q"))

    def run(self) -> None:
        host_clusters = -(-self._size_bytes // self._header.cluster_size_bytes)
        if host_clusters > _MOST_HOST_CLUSTERS:
            self._object("cluster-count", f"its file has {host_clusters} clusters, more than {_MOST_HOST_CLUSTERS}")
            return
        self._claims = bytearray(host_clusters)
        self._claim_metadata()
        l1 = read_entries(self._reader, self._header.l1_offset_bytes, self._header.l1_entries)
        places = sorted(entry & OFFSET_MASK for entry in l1 if entry & OFFSET_MASK)
        if len(places) * self._header.cluster_size_bytes > _MOST_L2_BYTES:
            self._object("l2-table", f"it has {len(places)} L2 tables, more than are looked at")
            return
        for place in self._claim(places, what="L2 table"):
            self._visit_table(place)
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

    def _claim(self, places: list[int], *, what: str) -> list[int]:
        """Take host clusters for their one use; return those that could be taken."""
        claims, bits, low_bits = self._claims, self._bits, self._header.cluster_size_bytes - 1
        taken = []
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
                taken.append(place)
        return taken

    def _visit_table(self, place: int) -> None:
        table = read_entries(self._reader, place, self._header.cluster_size_bytes // 8)
        if len(table) * 8 < self._header.cluster_size_bytes:
            self._object("outside-file", f"the L2 table at {place} ends outside the file")
        if not any(table):
            return
        entries = table[::2] if self._header.has_extended_l2 else table
        plain = [entry for entry in entries if entry & OFFSET_MASK and not entry & COMPRESSED_FLAG]
        self._claim([entry & OFFSET_MASK for entry in plain], what="data cluster")
        self._count_plain(table, plain)
        compressed = [entry for entry in entries if entry & COMPRESSED_FLAG]
        if compressed:
            self._visit_compressed(compressed)

    def _count_plain(self, table: array[int], plain: list[int]) -> None:
        header = self._header
        if not header.has_extended_l2:
            clusters = len(plain) if header.version == 2 else sum(1 for entry in plain if not entry & ZERO_FLAG)
            self.plain_clusters += clusters
            self.allocated_bytes += clusters * header.cluster_size_bytes
            return
        for entry, bitmap in zip(table[::2], table[1::2], strict=False):
            subclusters = 0 if entry & COMPRESSED_FLAG else (bitmap & _ALLOCATED_SUBCLUSTERS).bit_count()
            self.plain_clusters += 1 if subclusters else 0
            self.allocated_bytes += subclusters * header.subcluster_size_bytes

    def _visit_compressed(self, compressed: list[int]) -> None:
        self.compressed_clusters += len(compressed)
        self.allocated_bytes += len(compressed) * self._header.cluster_size_bytes
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
