"""Tar headers, both ways: POSIX ustar and pax (IEEE Std 1003.1, pax "ustar Interchange Format"), and GNU's numbers.

Reading is for layers that others wrote, so everything is bounded and checked; writing makes the one form that all
tools read, with the same bytes for the same facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from imagekit.base.errors import ImageError, UsageError

BLOCK_BYTES = 512
END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)
LARGEST_USTAR_SIZE = 0o77777777777
"""What eleven octal digits hold: one byte less than 8 GiB; larger files need a pax record."""

_CHECKSUM = slice(148, 156)
_USTAR_MAGIC = b"ustar\x00"
_LARGEST_NUMBER = 2**63 - 1


class EntryKind(Enum):
    """What an entry is; the value is its type flag."""

    FILE = b"0"
    OLD_FILE = b"\x00"
    HARD_LINK = b"1"
    SYMBOLIC_LINK = b"2"
    CHARACTER_DEVICE = b"3"
    BLOCK_DEVICE = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"
    PAX = b"x"
    PAX_GLOBAL = b"g"
    GNU_LONG_NAME = b"L"
    GNU_LONG_LINK = b"K"

    @property
    def has_content(self) -> bool:
        """Whether content follows the header; what a size field of the others says is ignored, as docker does."""
        return self in _WITH_CONTENT

    @property
    def words(self) -> str:
        """What to call it in a message."""
        return self.name.lower().replace("_", " ")


_WITH_CONTENT = frozenset(
    {
        EntryKind.FILE,
        EntryKind.OLD_FILE,
        EntryKind.PAX,
        EntryKind.PAX_GLOBAL,
        EntryKind.GNU_LONG_NAME,
        EntryKind.GNU_LONG_LINK,
    }
)
_CONTIGUOUS_FILE = b"7"  # POSIX lets readers treat it as a file


@dataclass(frozen=True, slots=True, kw_only=True)
class TarHeader:
    """One header as it stands there; names are bytes as text (``surrogateescape``)."""

    name: str
    kind: EntryKind
    size_bytes: int = 0
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    user: str = ""
    group: str = ""
    modified_seconds: int = 0
    link_name: str = ""


def parse_header(block: bytes, *, what: str) -> TarHeader:
    """Return the header in ``block``, 512 bytes.

    Raises:
        ImageError: It is none, or of a kind that nobody puts into a layer, with reason UnsafeImage.
    """
    if not _checksum_holds(block):
        raise _broken(what, "a header's checksum does not hold")
    name = _text(block[0:100])
    if block[257:263] == _USTAR_MAGIC and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    kind = _kind(block[156:157], name, what)
    return TarHeader(
        name=name,
        kind=kind,
        size_bytes=_number(block[124:136], what) if kind.has_content else 0,
        mode=_number(block[100:108], what),
        uid=_number(block[108:116], what),
        gid=_number(block[116:124], what),
        user=_text(block[265:297]),
        group=_text(block[297:329]),
        modified_seconds=_number(block[136:148], what, is_signed=True),
        link_name=_text(block[157:257]),
    )


def format_header(header: TarHeader) -> bytes:
    """Return ``header`` as bytes, with a pax header before it where ustar's fields are too small.

    Raises:
        UsageError: The name cannot be written.
    """
    encoded_name = header.name.encode("utf-8", "surrogateescape")
    if not encoded_name or b"\x00" in encoded_name:
        raise UsageError(f"{header.name!r} cannot be the name of a file in a layer")
    records: dict[str, bytes] = {}
    if len(encoded_name) > 100 or not header.name.isascii():
        records["path"] = encoded_name
    if header.size_bytes > LARGEST_USTAR_SIZE:
        records["size"] = str(header.size_bytes).encode()
    block = _ustar_block(header, encoded_name)
    if not records:
        return block
    content = b"".join(_pax_record(key, value) for key, value in sorted(records.items()))
    described = TarHeader(name=f"PaxHeaders.0/{header.name}"[:100], kind=EntryKind.PAX, size_bytes=len(content))
    return _ustar_block(described, described.name.encode("ascii", "replace")) + content + padding(len(content)) + block


def padding(size_bytes: int) -> bytes:
    """Return the zeros that fill the last block after ``size_bytes`` of content."""
    return bytes(-size_bytes % BLOCK_BYTES)


def _ustar_block(header: TarHeader, encoded_name: bytes) -> bytes:
    size_bytes = header.size_bytes if header.size_bytes <= LARGEST_USTAR_SIZE else 0
    block = bytearray(BLOCK_BYTES)
    block[0 : min(len(encoded_name), 100)] = encoded_name[:100]
    block[100:108] = b"%07o\x00" % header.mode
    block[108:116] = b"%07o\x00" % header.uid
    block[116:124] = b"%07o\x00" % header.gid
    block[124:136] = b"%011o\x00" % size_bytes
    block[136:148] = b"%011o\x00" % header.modified_seconds
    block[_CHECKSUM] = b" " * 8
    block[156:157] = header.kind.value
    block[257:265] = b"ustar\x0000"
    block[265 : 265 + len(header.user)] = header.user.encode("ascii")
    block[297 : 297 + len(header.group)] = header.group.encode("ascii")
    block[329:337] = block[337:345] = b"%07o\x00" % 0
    block[_CHECKSUM] = b"%06o\x00 " % sum(block)
    return bytes(block)


def _pax_record(key: str, value: bytes) -> bytes:
    """Return ``LENGTH key=value``, where the length counts its own digits too."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _checksum_holds(block: bytes) -> bool:
    """Old writers summed signed bytes; both sums are accepted, as everybody does."""
    try:
        expected = int(block[_CHECKSUM].strip(b" \x00") or b"0", 8)
    except ValueError:
        return False
    blanked = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(blanked)
    return expected in (unsigned, unsigned - 256 * sum(byte > 127 for byte in blanked))


def _kind(flag: bytes, name: str, what: str) -> EntryKind:
    if flag == _CONTIGUOUS_FILE:
        return EntryKind.FILE
    if flag == b"S":
        raise _broken(what, f"{name[:200]!r} is a GNU sparse file", hint="write the layer without tar --sparse")
    try:
        return EntryKind(flag)
    except ValueError:
        raise _broken(what, f"{name[:200]!r} is of the unknown kind {flag!r}") from None


def _number(field: bytes, what: str, *, is_signed: bool = False) -> int:
    """Return an octal number, or one in GNU's base 256 (first bit set)."""
    if field[0] & 0x80:
        number = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40:
            number -= 1 << (8 * len(field) - 1)
    else:
        digits = field.strip(b" \x00")
        try:
            number = int(digits, 8) if digits else 0
        except ValueError:
            raise _broken(what, f"a header has the number {field!r}") from None
    if not (-_LARGEST_NUMBER if is_signed else 0) <= number <= _LARGEST_NUMBER:
        raise _broken(what, f"a header has the number {number}")
    return number


def _text(field: bytes) -> str:
    return field.split(b"\x00", 1)[0].decode("utf-8", "surrogateescape")


def _broken(what: str, why: str, *, hint: str = "") -> ImageError:
    return ImageError(f"{what} is not a sound tar archive: {why}", reason="UnsafeImage", hint=hint)
