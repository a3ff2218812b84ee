"""Walking through a tar archive that comes as a stream: one entry at a time, nothing extracted, everything bounded.

Understands ustar, pax and GNU's long names. What could make two readers see two archives (sparse entries, global
records that change names or sizes, several headers that name one entry) is refused, since no tool writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from imagekit.base.errors import ImageError, VerificationError
from imagekit.base.text import printable
from imagekit.base.units import KIB, MIB
from imagekit.stream.base import ByteStream
from registrydisk.tar_header import BLOCK_BYTES, EntryKind, TarHeader, padding, parse_header

MOST_ENTRIES = 2_000_000
"""A whole distribution has some hundred thousand."""

_LARGEST_PAX_BYTES = MIB
_LARGEST_NAME_BYTES = 64 * KIB
_SKIP_BYTES = MIB
_ATTRIBUTE = "SCHILY.xattr."
_FORBIDDEN_GLOBALS = ("path", "linkpath", "size", "GNU.sparse")


@dataclass(frozen=True, slots=True, kw_only=True)
class TarEntry:
    """An entry with its pax records applied.

    Attributes:
        parts: Its name without ``.`` and leading slashes, split; empty for the root.
        is_sparse: Whether pax records say that the content is GNU's sparse form.
        attributes: Names of extended attributes.
    """

    header: TarHeader
    parts: tuple[str, ...]
    is_sparse: bool = False
    attributes: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The normalised name for a reader: bytes that are no text, and control characters, are escaped."""
        return printable("/".join(self.parts))


class TarStream:
    """The entries of a tar archive; the content of the current one is read from the object itself.

    Args:
        skip: Passes over so many bytes of the stream without reading them, where the stream can.
    """

    def __init__(self, stream: ByteStream, *, what: str, skip: Callable[[int], None] | None = None) -> None:
        self._stream = stream
        self._skip = skip
        self._what = what
        self._content_left_bytes = 0
        self._padding_bytes = 0

    def entries(self) -> Iterator[TarEntry]:
        """Yield the entries in order; asking for the next one skips the content of the last.

        Raises:
            ImageError: The archive is malformed or of a form that is refused, with reason UnsafeImage.
            VerificationError: It ends within an entry, with reason TruncatedStream.
        """
        for _ in range(MOST_ENTRIES):
            entry = self._next_entry()
            if entry is None:
                return
            yield entry
        raise self._refused(f"more than {MOST_ENTRIES} entries")

    def read(self, size_bytes: int, /) -> bytes:
        """Return the next bytes of the current entry's content, ``b""`` after its last."""
        chunk = self._stream.read(min(size_bytes, self._content_left_bytes)) if self._content_left_bytes else b""
        if not chunk and self._content_left_bytes and size_bytes:
            raise self._truncated()
        self._content_left_bytes -= len(chunk)
        return chunk

    def _next_entry(self) -> TarEntry | None:
        records: dict[str, bytes] = {}
        long_names: dict[EntryKind, bytes] = {}
        is_ambiguous = False
        while True:
            self._skip_content()
            block = self._read_block()
            if block is None:
                return None
            header = self._open(parse_header(block, what=self._what))
            if header.kind is EntryKind.PAX:
                is_ambiguous = bool(records or long_names)
                records = self._records(header)
            elif header.kind is EntryKind.PAX_GLOBAL:
                self._check_global(self._records(header))
            elif header.kind in (EntryKind.GNU_LONG_NAME, EntryKind.GNU_LONG_LINK):
                is_ambiguous = bool(records) or header.kind in long_names
                long_names[header.kind] = self._whole_content(header, _LARGEST_NAME_BYTES).split(b"\x00", 1)[0]
            else:
                return self._entry(header, records, long_names)
            if is_ambiguous:
                # Some readers merge such headers, others believe the first or the last: one content, two names.
                raise self._refused("several headers describe one entry")

    def _entry(self, header: TarHeader, records: dict[str, bytes], long_names: dict[EntryKind, bytes]) -> TarEntry:
        # An empty record takes back an earlier one, and leaves what the header says (pax, "pax Extended Header").
        name = records.get("path") or long_names.get(EntryKind.GNU_LONG_NAME)
        link_name = records.get("linkpath") or long_names.get(EntryKind.GNU_LONG_LINK)
        if name is not None:
            header = replace(header, name=name.decode("utf-8", "surrogateescape"))
        if link_name is not None:
            header = replace(header, link_name=link_name.decode("utf-8", "surrogateescape"))
        if records.get("size") and header.kind.has_content:
            header = self._open(replace(header, size_bytes=self._decimal(records["size"])))
        if header.kind is EntryKind.OLD_FILE:
            # Before POSIX had a flag for directories, a slash at the end of the name was one.
            header = replace(header, kind=EntryKind.DIRECTORY if header.name.endswith("/") else EntryKind.FILE)
        return TarEntry(
            header=header,
            parts=self._parts(header.name),
            is_sparse=any(key.startswith("GNU.sparse") for key in records),
            attributes=tuple(printable(key.removeprefix(_ATTRIBUTE)) for key in records if key.startswith(_ATTRIBUTE)),
        )

    def _open(self, header: TarHeader) -> TarHeader:
        """Make the content of ``header`` the one that ``read`` returns."""
        self._content_left_bytes = header.size_bytes
        self._padding_bytes = len(padding(header.size_bytes))
        return header

    def _parts(self, name: str) -> tuple[str, ...]:
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if ".." in parts or "\x00" in name:
            raise self._refused(f"the name {name[:200]!r} leads out of the image")
        return parts

    def _records(self, header: TarHeader) -> dict[str, bytes]:
        content = self._whole_content(header, _LARGEST_PAX_BYTES)
        records: dict[str, bytes] = {}
        start = 0
        while start < len(content):
            space = content.find(b" ", start, start + 20)
            end = start + self._decimal(content[start:space])
            record = content[space + 1 : end]
            key, equals, value = record[:-1].partition(b"=")
            if space < 0 or not equals or record[-1:] != b"\n":
                raise self._refused("a pax record is malformed")
            records[key.decode("utf-8", "replace")] = value
            start = end
        return records

    def _check_global(self, records: dict[str, bytes]) -> None:
        for key in records:
            if key.startswith(_FORBIDDEN_GLOBALS):
                raise self._refused(f"a global pax record sets {key}")

    def _whole_content(self, header: TarHeader, most_bytes: int) -> bytes:
        if header.size_bytes > most_bytes:
            raise self._refused(f"a {header.kind.words} entry has {header.size_bytes} bytes, more than {most_bytes}")
        content = bytearray()
        while chunk := self.read(header.size_bytes):
            content += chunk
        return bytes(content)

    def _skip_content(self) -> None:
        if self._skip is not None:
            self._skip(self._content_left_bytes)
            self._content_left_bytes = 0
        while self.read(_SKIP_BYTES):
            pass
        padding_bytes, self._padding_bytes = self._padding_bytes, 0
        if len(self._read_fully(padding_bytes)) < padding_bytes:
            raise self._truncated()

    def _read_block(self) -> bytes | None:
        """Return the next header; None at the end mark, or at an end without one, which GNU tar and docker accept."""
        block = self._read_fully(BLOCK_BYTES)
        if not block or not any(block):
            return None
        if len(block) < BLOCK_BYTES:
            raise self._truncated()
        return block

    def _read_fully(self, size_bytes: int) -> bytes:
        content = b""
        while len(content) < size_bytes:
            chunk = self._stream.read(size_bytes - len(content))
            if not chunk:
                break
            content += chunk
        return content

    def _decimal(self, text: bytes) -> int:
        if not text.isdigit() or len(text) > 19 or int(text) >= 2**63:
            raise self._refused(f"a pax record has the number {text[:40]!r}")
        return int(text)

    def _refused(self, why: str) -> ImageError:
        return ImageError(f"{self._what} is not a sound tar archive: {why}", reason="UnsafeImage")

    def _truncated(self) -> VerificationError:
        return VerificationError(f"{self._what} ends within an entry", reason="TruncatedStream")
