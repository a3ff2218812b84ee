"""Parts of an image whose owner is not known yet: kept in memory up to a bound, then in a temporary file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

from imagekit.base.errors import ImageError
from imagekit.base.files import translate_os_error
from imagekit.base.units import MIB, format_size
from imagekit.stream.sparse import write_all

_PIECE_BYTES = MIB


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
        self._spill: BinaryIO | None = None
        self._spilled = bytearray()

    def keep(self, first_unit: int, view: memoryview) -> None:
        """Copy the consecutive units in ``view``.

        Raises:
            LateTablesError: The memory is full and there is no file.
        """
        unit_bytes = self._unit_bytes
        for number, start in enumerate(range(0, len(view), unit_bytes), start=first_unit):
            self._kept[number] = bytes(view[start : start + unit_bytes])
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
        self._spilled.clear()
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
                piece = self._read_spilled(unit, offset_bytes, end_bytes - offset_bytes)
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
        if self._spill is None:
            self._spill = self._open_spill()
        try:
            self._write_kept(self._spill.fileno())
        except OSError as error:
            raise translate_os_error(error, doing="keep parts of the image in a temporary file") from error
        self._kept.clear()
        self._kept_bytes = 0

    def _write_kept(self, descriptor: int) -> None:
        # Units lie in the file where they lay in the image: no index is needed, and what is between is a hole.
        self._spilled.extend(bytes(max(0, max(self._kept) + 1 - len(self._spilled))))
        stretch: list[bytes] = []
        end = -1
        for number in sorted(self._kept):
            if number != end or len(stretch) * self._unit_bytes >= _PIECE_BYTES:
                self._write_stretch(descriptor, stretch, end)
                stretch = []
            stretch.append(self._kept[number])
            end = number + 1
        self._write_stretch(descriptor, stretch, end)

    def _write_stretch(self, descriptor: int, units: list[bytes], end_unit: int) -> None:
        first_unit = end_unit - len(units)
        write_all(descriptor, memoryview(b"".join(units)), first_unit * self._unit_bytes)
        self._spilled[first_unit:end_unit] = b"\1" * len(units)

    def _read_spilled(self, unit: int, offset_bytes: int, size_bytes: int) -> bytes:
        if self._spill is None or unit >= len(self._spilled) or not self._spilled[unit]:
            return b""
        end_unit = self._spilled.find(0, unit)
        most_bytes = min(size_bytes, _PIECE_BYTES)
        if end_unit >= 0:
            most_bytes = min(most_bytes, end_unit * self._unit_bytes - offset_bytes)
        return os.pread(self._spill.fileno(), most_bytes, offset_bytes)
