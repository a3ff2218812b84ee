"""The only documents that a worker reads and writes: the job, and what became of it.

Both are JSON with camelCase keys. A job holds no secret: credentials reach a worker beside it, as a RegistryAccess.
"""

from __future__ import annotations

import json
import types
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args, get_type_hints

from imagekit.base.errors import ImagekitError, UsageError
from imagekit.image import Compression, DiskFormat

SCHEMA_VERSION = 1
LARGEST_DOCUMENT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportJob:
    """One disk to bring into one volume.

    Attributes:
        source: ``docker://REF``, ``oci:DIR``, ``oci-archive:FILE``, ``docker-archive:FILE``, ``docker-daemon:REF``,
            ``http(s)://…``, a path, or ``-`` for standard input.
        target: A directory (the disk becomes ``disk.img`` in it), a file, or a block device.
        platform: Which image of an index is meant, as ``linux/arm64``; empty for this machine's.
        checksum: ``sha256:HEX`` or the like over the source as it is transferred; empty for none.
        size_bytes: The disk is grown to this when it is smaller.
        overwrite: Replace a disk that is already there.
        preallocate: Reserve the whole disk in the file system.
        thin: Accept a disk that is larger than the free space of the file system.
        resume: Go on where a killed run of the same job ended.
        scratch: Directory for what cannot be decoded in one pass; empty means beside the target.
    """

    source: str
    target: str
    platform: str = ""
    checksum: str = ""
    size_bytes: int | None = None
    overwrite: bool = False
    preallocate: bool = False
    thin: bool = False
    resume: bool = True
    scratch: str = ""

    @classmethod
    def from_json(cls, content: bytes) -> ImportJob:
        """Return the job in a document.

        Raises:
            UsageError: It is no JSON object, or a field is missing, unknown or of the wrong type.
        """
        document = _parse_object(content)
        known = get_type_hints(cls)
        names = {_camel(field.name): field.name for field in fields(cls)}
        if unknown := sorted(document.keys() - names.keys()):
            raise UsageError(f"an import job has no field {unknown[0]!r:.100}")
        values = {names[key]: value for key, value in document.items()}
        for name, value in values.items():
            if not _is_of_type(value, known[name]):
                raise UsageError(f"the field {name!r} of an import job cannot be {value!r:.100}")
        if missing := [name for name in ("source", "target") if not values.get(name)]:
            raise UsageError(f"an import job needs the field {missing[0]!r}")
        return cls(**values)

    def to_json(self) -> bytes:
        """Return the document."""
        return _document(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What an import did.

    Attributes:
        target: The file or device that now holds the disk.
        format: What the disk was stored as in the source; the target is always raw.
        compression: What was wrapped around the disk, apart from the layer's own compression.
        virtual_size_bytes: Size of the disk in the source.
        disk_size_bytes: Size of the disk in the target, which is larger when it was grown.
        fetched_bytes: What this run read from the source, as it is transferred.
        written_bytes: Content of the disk that this run handed to the target; zeros that became holes included.
        allocated_bytes: What the target occupies.
        resumed_bytes: What an earlier run had already brought, of the source.
        seconds: Wall time.
        bytes_per_second: Content of the disk a second.
        manifest_digest: Digest of the image manifest, for images.
        payload_path: Where in the image the disk was.
        checksum: ``sha256:HEX`` or the like over the source, when one was asked for.
    """

    source: str
    target: str
    format: DiskFormat
    compression: Compression
    virtual_size_bytes: int
    disk_size_bytes: int
    fetched_bytes: int
    written_bytes: int
    allocated_bytes: int
    resumed_bytes: int
    seconds: float
    bytes_per_second: int
    manifest_digest: str = ""
    payload_path: str = ""
    checksum: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFailure:
    """Why an import failed, in the words of the error tree; ``temporary`` says whether a retry may help."""

    reason: str
    message: str
    hint: str
    temporary: bool
    exit_code: int

    @classmethod
    def of(cls, error: ImagekitError) -> ImportFailure:
        """Return what is to be reported of ``error``."""
        return cls(
            reason=error.reason, message=error.message, hint=error.hint, temporary=error.temporary, exit_code=error.exit_code
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """The document that a worker leaves: exactly one of ``result`` and ``failure`` is set."""

    result: ImportResult | None = None
    failure: ImportFailure | None = None

    def to_json(self) -> bytes:
        """Return the document."""
        return _document(asdict(self))


def _document(values: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": SCHEMA_VERSION, **_camel_keys(values)}, indent=2).encode() + b"\n"


def _camel_keys(values: dict[str, Any]) -> dict[str, Any]:
    return {_camel(name): _camel_keys(value) if isinstance(value, dict) else value for name, value in values.items()}


def _parse_object(content: bytes) -> dict[str, Any]:
    if len(content) > LARGEST_DOCUMENT_BYTES:
        raise UsageError(f"the import job is larger than {LARGEST_DOCUMENT_BYTES} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UsageError("the import job is not JSON") from error
    if not isinstance(document, dict):
        raise UsageError("the import job is not a JSON object")
    version = document.pop("schemaVersion", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise UsageError(f"the import job has schema version {version!r:.50}, only {SCHEMA_VERSION} is known")
    return document


def _is_of_type(value: Any, hint: Any) -> bool:
    """Exact types: JSON's true is no size."""
    accepted = get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return type(value) in accepted


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
