"""Parts of an image whose owner is not known yet: kept in memory up to a bound, then in a temporary file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from imagekit.base.errors import ImageError
from imagekit.base.files import translate_os_error
from imagekit.base.units import MIB, format_size
from imagekit.stream.sparse import write_all
from imagekit.stream.writeback import Writeback

_PIECE_BYTES = MIB
_DOING = "keep parts of the image in a temporary file"


class LateTablesError(ImageError):
    """The tables that say where data belongs come after too much of the data, and there is no room to keep it."""

    default_reason = "UnsupportedFormat"


class PendingUnits:
    """Units of the image file, by number, until a table names them or the end shows that none does.

    Args:
        unit_bytes: Size of a unit; the last one of the file may be shorter.
        most_bytes: Bound of what is kept in memory.
        open_spill: Opens an unlinked temporary file for what is more, or None to refuse more.
    """

    def __init__(self, *, unit_bytes: int, most_bytes: int, open_spill: Callable[[], BinaryIO] | None) -> None:
        self._unit_bytes = unit_bytes
        self._most_bytes = most_bytes
        self._open_spill = open_spill
        self._kept: dict[int, bytes] = {}
        self._kept_bytes = 0
        self._spill: _Spill | None = None

    def keep(self, first_unit: int, view: memoryview) -> None:
        """Copy the consecutive units in ``view``.

        Raises:
            LateTablesError: The memory is full and there is no file.
        """
        if self._spill is not None:
            # What is this late is not alone: going through the memory would only cost copies.
            self._spill.write(first_unit, view)
            return
        for number, start in enumerate(range(0, len(view), self._unit_bytes), start=first_unit):
            self._kept[number] = bytes(view[start : start + self._unit_bytes])
        self._kept_bytes += len(view)
        if self._kept_bytes > self._most_bytes:
            self._flush()

    def drop(self, first_unit: int, end_unit: int) -> None:
        """Forget units that turned out to hold nothing of the disk; unknown ones are fine."""
        for number in range(first_unit, end_unit):
            self._kept_bytes -= len(self._kept.pop(number, b""))

    def clear(self) -> None:
        """Forget everything and free the temporary file."""
        self._kept.clear()
        self._kept_bytes = 0
        if self._spill is not None:
            self._spill.close()
            self._spill = None

    def pieces(self, offset_bytes: int, size_bytes: int) -> Iterator[bytes]:
        """Yield the bytes of a range in order, in pieces of at most 1 MiB or a unit.

        Raises:
            ImageError: Some were not kept: two parts of the image claim them.
        """
        end_bytes = offset_bytes + size_bytes
        while offset_bytes < end_bytes:
            unit, skip = divmod(offset_bytes, self._unit_bytes)
            kept = self._kept.get(unit)
            if kept is not None:
                piece = kept[skip : skip + end_bytes - offset_bytes]
            else:
                piece = self._spill.read(offset_bytes, end_bytes - offset_bytes) if self._spill is not None else b""
            if not piece:
                raise ImageError(f"two parts of the image claim its cluster at {offset_bytes}", reason="UnsafeImage")
            yield piece
            offset_bytes += len(piece)

    def _flush(self) -> None:
        if self._open_spill is None:
            raise LateTablesError(
                f"the image's tables come after more than {format_size(self._most_bytes)} of its data",
                hint="import it from a seekable source, or convert it with qemu-img first",
            )
        self._spill = _Spill(self._open_spill, unit_bytes=self._unit_bytes)
        for first_unit, units in self._stretches():
            self._spill.write(first_unit, memoryview(b"".join(units)))
        self._kept.clear()
        self._kept_bytes = 0

    def _stretches(self) -> Iterator[tuple[int, list[bytes]]]:
        """Yield what is kept as consecutive units, of about a MiB at most."""
        first_unit = 0
        units: list[bytes] = []
        for number in sorted(self._kept):
            if units and (number != first_unit + len(units) or len(units) * self._unit_bytes >= _PIECE_BYTES):
                yield first_unit, units
                units = []
            if not units:
                first_unit = number
            units.append(self._kept[number])
        if units:
            yield first_unit, units


class _Spill:
    """Units in a file, where they lay in the image: no index is needed, and what is between them is a hole."""

    def __init__(self, open_file: Callable[[], BinaryIO], *, unit_bytes: int) -> None:
        try:
            self._file = open_file()
        except OSError as error:
            raise translate_os_error(error, doing=_DOING) from error
        self._unit_bytes = unit_bytes
        self._writeback = Writeback(self._file.fileno())
        self._is_here = bytearray()

    def write(self, first_unit: int, view: memoryview) -> None:
        end_unit = first_unit + -(-len(view) // self._unit_bytes)
        self._is_here.extend(bytes(max(0, end_unit - len(self._is_here))))
        try:
            write_all(self._file.fileno(), view, first_unit * self._unit_bytes)
            self._writeback.wrote(len(view))
        except OSError as error:
            raise translate_os_error(error, doing=_DOING) from error
        self._is_here[first_unit:end_unit] = b"\1" * (end_unit - first_unit)

    def read(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Return some bytes from an offset; none when its unit was not written."""
        unit = offset_bytes // self._unit_bytes
        if unit >= len(self._is_here) or not self._is_here[unit]:
            return b""
        end_unit = self._is_here.find(0, unit)
        most_bytes = min(size_bytes, _PIECE_BYTES)
        if end_unit >= 0:
            most_bytes = min(most_bytes, end_unit * self._unit_bytes - offset_bytes)
        try:
            return os.pread(self._file.fileno(), most_bytes, offset_bytes)
        except OSError as error:
            raise translate_os_error(error, doing=_DOING) from error

    def close(self) -> None:
        self._file.close()
