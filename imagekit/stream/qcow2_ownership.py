"""Which part of an image file belongs to what: nothing may belong to two."""

from __future__ import annotations

from collections.abc import Iterator

from imagekit.base.errors import ImageError

_FREE = 0
_SHARED = 1
_OWNED = 2
_SECTOR_BYTES = 512


class Ownership:
    """One byte for each unit of the file that was passed; it grows with the stream.

    A unit is what two owners cannot share: a cluster, or a subcluster where the image has them. Only compressed
    clusters, which are packed, share units, and only with each other.
    """

    def __init__(self, unit_bytes: int) -> None:
        self._unit_bytes = unit_bytes
        self._units = bytearray()
        self._chain_start = self._chain_end = 0
        self._last_compressed = -1

    def extend(self, end_bytes: int) -> None:
        """Make room for the file up to ``end_bytes``."""
        missing_units = -(-end_bytes // self._unit_bytes) - len(self._units)
        if missing_units > 0:
            self._units.extend(bytes(missing_units))

    def claim(self, offset_bytes: int, size_bytes: int) -> None:
        """Give a range to an owner.

        Raises:
            ImageError: It has one: what is mapped twice makes a small image large, and is damage in any case.
        """
        first, end = self._units_of(offset_bytes, size_bytes)
        if self._units.count(_FREE, first, end) != end - first:
            raise _claimed_twice(offset_bytes)
        self._units[first:end] = bytes((_OWNED,)) * (end - first)

    def claim_compressed(self, offset_bytes: int, size_bytes: int) -> None:
        """Give a range, of which up to a sector at the end may be padding, to a compressed cluster.

        Call it in the order of the file as far as possible: units between two clusters count as wholly owned only when
        the clusters follow each other.

        Raises:
            ImageError: Something else owns its beginning, or the cluster that was claimed before lies over it.
        """
        first, end = self._units_of(offset_bytes, size_bytes)
        end_bytes = offset_bytes + size_bytes
        is_inside = self._chain_start <= offset_bytes <= self._chain_end - _SECTOR_BYTES
        if is_inside or offset_bytes == self._last_compressed or self._units[first] == _OWNED:
            raise _claimed_twice(offset_bytes)
        self._last_compressed = offset_bytes
        if not self._chain_start <= offset_bytes <= self._chain_end:
            self._chain_start = offset_bytes
        self._chain_end = end_bytes
        self._units[first:end] = self._units[first:end].replace(bytes((_FREE,)), bytes((_SHARED,)))
        # The last sector may hold the beginning of a cluster that is not known yet.
        whole_end = (end_bytes - _SECTOR_BYTES + 1) // self._unit_bytes
        whole_first = max(-(-self._chain_start // self._unit_bytes), first)
        if whole_first < whole_end:
            self._units[whole_first:whole_end] = bytes((_OWNED,)) * (whole_end - whole_first)

    def unowned(self, start_bytes: int, end_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield first unit and end unit of the stretches that are not, or not wholly, owned."""
        start, stop = start_bytes // self._unit_bytes, -(-end_bytes // self._unit_bytes)
        # One translation, then find(): a loop over single units would take longer than the decoding.
        states = bytes(self._units[start:stop]).replace(bytes((_SHARED,)), bytes((_FREE,)))
        position = 0
        while (first := states.find(_FREE, position)) >= 0:
            end = states.find(_OWNED, first)
            position = end if end >= 0 else len(states)
            yield start + first, start + position

    def _units_of(self, offset_bytes: int, size_bytes: int) -> tuple[int, int]:
        end = -(-(offset_bytes + size_bytes) // self._unit_bytes)
        return offset_bytes // self._unit_bytes, min(end, len(self._units))


def _claimed_twice(offset_bytes: int) -> ImageError:
    return ImageError(f"two parts of the image claim its cluster at {offset_bytes}", reason="UnsafeImage")
