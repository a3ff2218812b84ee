"""What qemu-img answers, parsed once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from imagekit.base.errors import ToolError

_PROGRESS = re.compile(rb"\((\d{1,3}(?:\.\d+)?)/100%\)")
_MISMATCH = re.compile(rb"mismatch at offset (\d+)")
_KEPT_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """What ``info`` says: the guest's size and what the file occupies."""

    virtual_size_bytes: int
    actual_size_bytes: int
    cluster_size_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What ``check`` found. Leaks waste space; corruptions lose data; errors are places it could not look at.

    Attributes:
        is_supported: Whether the format has anything to check; all counts are zero otherwise.
    """

    is_supported: bool
    errors: int = 0
    corruptions: int = 0
    leaks: int = 0
    corruptions_fixed: int = 0
    leaks_fixed: int = 0
    total_clusters: int | None = None
    allocated_clusters: int | None = None
    compressed_clusters: int | None = None

    @property
    def is_clean(self) -> bool:
        """Whether no data is lost; leaks are."""
        return self.errors == 0 and self.corruptions == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """A stretch of the guest's disk.

    Attributes:
        has_data: Whether the image stores something for it.
        is_zero: Whether it reads as zeros.
        offset_bytes: Where it lies in the file; None when it does not, or is compressed.
    """

    start_bytes: int
    length_bytes: int
    has_data: bool
    is_zero: bool
    offset_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """How large an image becomes: as it is, and once the guest has written everywhere."""

    required_bytes: int
    fully_allocated_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Whether two disks hold the same; where one is longer, its rest counts as equal when it is zero.

    Attributes:
        first_difference_bytes: The 512-byte sector of the first difference.
    """

    is_equal: bool
    first_difference_bytes: int | None = None


class _Answer:
    """One JSON object of qemu-img, read by type; what is not there is an error that names it."""

    def __init__(self, document: object, *, subject: str) -> None:
        if not isinstance(document, dict):
            raise ToolError(f"{subject} answered something else than an object")
        self._document: dict[object, object] = document
        self._subject = subject

    def number(self, name: str) -> int:
        value = self.optional_number(name)
        if value is None:
            raise ToolError(f"{self._subject} answered without {name!r}")
        return value

    def optional_number(self, name: str) -> int | None:
        value = self._document.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def flag(self, name: str) -> bool:
        return self._document.get(name) is True


def _decode(stdout: bytes, *, subject: str) -> object:
    try:
        document: object = json.loads(stdout)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{subject} answered something else than JSON") from error
    return document


def parse_info(stdout: bytes) -> DiskFacts:
    """Return what ``qemu-img info --output=json`` printed."""
    subject = "qemu-img info"
    answer = _Answer(_decode(stdout, subject=subject), subject=subject)
    return DiskFacts(
        virtual_size_bytes=answer.number("virtual-size"),
        actual_size_bytes=answer.number("actual-size"),
        cluster_size_bytes=answer.optional_number("cluster-size"),
    )


def parse_check(stdout: bytes) -> CheckReport:
    """Return what ``qemu-img check --output=json`` printed; it leaves out the counts that are zero."""
    subject = "qemu-img check"
    answer = _Answer(_decode(stdout, subject=subject), subject=subject)
    return CheckReport(
        is_supported=True,
        errors=answer.number("check-errors"),
        corruptions=answer.optional_number("corruptions") or 0,
        leaks=answer.optional_number("leaks") or 0,
        corruptions_fixed=answer.optional_number("corruptions-fixed") or 0,
        leaks_fixed=answer.optional_number("leaks-fixed") or 0,
        total_clusters=answer.optional_number("total-clusters"),
        allocated_clusters=answer.optional_number("allocated-clusters"),
        compressed_clusters=answer.optional_number("compressed-clusters"),
    )


def parse_map(stdout: bytes) -> tuple[Extent, ...]:
    """Return what ``qemu-img map --output=json`` printed."""
    subject = "qemu-img map"
    document = _decode(stdout, subject=subject)
    if not isinstance(document, list):
        raise ToolError(f"{subject} answered something else than a list")
    return tuple(_extent(_Answer(entry, subject=subject)) for entry in document)


def _extent(answer: _Answer) -> Extent:
    return Extent(
        start_bytes=answer.number("start"),
        length_bytes=answer.number("length"),
        has_data=answer.flag("data"),
        is_zero=answer.flag("zero"),
        offset_bytes=answer.optional_number("offset"),
    )


def parse_measure(stdout: bytes) -> Measurement:
    """Return what ``qemu-img measure --output=json`` printed."""
    subject = "qemu-img measure"
    answer = _Answer(_decode(stdout, subject=subject), subject=subject)
    return Measurement(required_bytes=answer.number("required"), fully_allocated_bytes=answer.number("fully-allocated"))


def parse_compare(exit_code: int, printed: bytes) -> Comparison:
    """Return what ``qemu-img compare`` found; it exits 0 for equal and 1 for different disks."""
    if exit_code == 0:
        return Comparison(is_equal=True)
    match = _MISMATCH.search(printed)
    if match is None:  # the guards before qemu-img also exit with 1, and that is no answer
        raise ToolError(f"qemu-img compare ended with exit code {exit_code} and named no difference")
    return Comparison(is_equal=False, first_difference_bytes=int(match[1]))


class ProgressReader:
    """Turns the ``(12.34/100%)`` that ``-p`` prints into bytes done, and keeps the end of all else that is printed.

    Args:
        total_bytes: What 100 % are.
        advance: Told of bytes that were done since it was told last.
    """

    def __init__(self, *, total_bytes: int, advance: Callable[[int], None]) -> None:
        self._total_bytes = total_bytes
        self._advance = advance
        self._done_bytes = 0
        self._printed = bytearray()

    @property
    def printed(self) -> bytes:
        """The last few kilobytes, progress included."""
        return bytes(self._printed)

    def feed(self, chunk: bytes) -> None:
        """Take what the program printed; an entry may be cut anywhere."""
        self._printed += chunk
        del self._printed[:-_KEPT_BYTES]
        entries = _PROGRESS.findall(self._printed)
        if not entries:
            return
        done_bytes = min(int(float(entries[-1]) / 100 * self._total_bytes), self._total_bytes)
        if done_bytes > self._done_bytes:
            self._advance(done_bytes - self._done_bytes)
            self._done_bytes = done_bytes
