"""The Dockerfiles that make RegistryDisk images, understood without a daemon.

Exactly one form: ``FROM kubevirt/registry-disk-v1alpha`` or ``FROM scratch``, one ``COPY`` or ``ADD`` of a disk into
``/disk/``, and any ``LABEL`` and ``ENV``. Whatever else a Dockerfile may say is refused by name, never guessed at.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from imagekit.base.errors import ImagekitError, NotFoundError, UsageError
from imagekit.base.units import MIB
from registrydisk.labels import checked_text, checked_variables
from registrydisk.manifest import Platform

_LARGEST_BYTES = MIB
_BASE = re.compile(r"(?:\S+/)?(?:registry|container)-disk-v1alpha(?::[\w.-]+)?(?:@\S+)?")
_COPY_FLAGS = ("--chown=", "--chmod=", "--link")  # owner and mode are always qemu's, and read-only
_ARCHIVE_NAMES = (".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar.zst")
_OTHER_ENGINE = "build it with --engine docker"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction: its upper-case name, the rest of its line, and where it begins."""

    name: str
    rest: str
    line: int

    def refused(self, why: str, *, hint: str = _OTHER_ENGINE) -> UsageError:
        """Return the error that names this instruction's line."""
        return UsageError(f"line {self.line} of the Dockerfile: {why}", hint=hint)

    def words(self) -> list[str]:
        """Return the rest as words, from the JSON or the shell form."""
        if "$" in self.rest.replace("\\$", ""):
            raise self.refused("variables are not supported", hint=f"write the value itself, or {_OTHER_ENGINE}")
        try:
            if self.rest.startswith("["):
                words = json.loads(self.rest)
                if isinstance(words, list) and all(isinstance(word, str) for word in words):
                    return words
            return shlex.split(self.rest)
        except ValueError as error:
            raise self.refused(f"cannot be read: {error}", hint="look for an unclosed quote") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskDockerfile:
    """What a Dockerfile of the one form says.

    Attributes:
        source: Path or pattern of the disk in the context, or a URL.
        disk_name: Its name under /disk; empty to keep its own.
    """

    source: str
    disk_name: str = ""
    platform: Platform | None = None
    labels: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def read_dockerfile(path: Path) -> DiskDockerfile:
    """Return what the Dockerfile at ``path`` says.

    Raises:
        UsageError: It is of another form, or unreadable.
        NotFoundError: There is none.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no Dockerfile at {path}", hint="name it with -f") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the Dockerfile {path}") from error
    if len(content) > _LARGEST_BYTES:
        raise UsageError(f"the Dockerfile {path} is larger than {_LARGEST_BYTES} bytes")
    return parse_dockerfile(text)


def parse_dockerfile(text: str) -> DiskDockerfile:
    """Return what the Dockerfile ``text`` says; errors are those of ``read_dockerfile``."""
    base: Instruction | None = None
    copy: Instruction | None = None
    labels: dict[str, str] = {}
    environment: dict[str, str] = {}
    for instruction in instructions(text):
        if base is None and instruction.name != "FROM":
            hint = "ARG is not supported; write the value itself" if instruction.name == "ARG" else "begin with FROM scratch"
            raise instruction.refused(f"{instruction.name} before FROM", hint=hint)
        match instruction.name:
            case "FROM" if base is None:
                base = instruction
            case "COPY" | "ADD" if copy is None:
                copy = instruction
            case "LABEL":
                labels |= _assignments(instruction)
            case "ENV":
                environment |= checked_variables(_assignments(instruction))
            case "FROM":
                raise instruction.refused("several stages are not supported")
            case "COPY" | "ADD":
                raise instruction.refused("an image carries one disk, but this copies a second file")
            case _:
                raise instruction.refused(f"{instruction.name} is not supported")
    if base is None or copy is None:
        raise UsageError("the Dockerfile copies no disk", hint="write: FROM scratch, then COPY disk.qcow2 /disk/")
    has_directory, platform = _base(base)
    source, disk_name = _copy(copy, has_directory=has_directory)
    return DiskDockerfile(source=source, disk_name=disk_name, platform=platform, labels=labels, environment=environment)


def instructions(text: str) -> Iterator[Instruction]:
    """Yield the instructions, with continued lines joined and comments left out."""
    parts: list[str] = []
    first_line = 0
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if number == 1 or not parts:
            _refuse_other_escapes(stripped, number)
        if not stripped or stripped.startswith("#"):
            continue
        first_line = first_line if parts else number
        is_continued = stripped.endswith("\\")
        parts.append(stripped[:-1] if is_continued else stripped)
        if not is_continued:
            yield _instruction(" ".join(parts), first_line)
            parts = []
    if parts:
        yield _instruction(" ".join(parts), first_line)


def find_disk(context: Path, source: str) -> Path:
    """Return the one file of ``context`` that ``source``, a path or pattern, names; never one outside of it.

    Raises:
        NotFoundError: There is none.
        UsageError: There are several, or it leads out of the context.
    """
    relative = PurePosixPath(source.lstrip("/"))
    if ".." in relative.parts or "**" in source or not relative.parts:
        raise UsageError(f"{source!r} leads out of the build context or is no single file", hint="copy the disk into the context")
    root = context.resolve()
    try:
        found = sorted(path for path in root.glob(str(relative)) if not path.is_dir())
    except ValueError as error:
        raise UsageError(f"{source!r} is not a pattern") from error
    if not found:
        raise NotFoundError(f"nothing in {context} is called {source!r}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:10])
        raise UsageError(f"{source!r} matches {len(found)} files: {names}", hint="an image carries one disk; name it")
    disk = found[0].resolve()
    if not disk.is_relative_to(root):
        raise UsageError(f"{source!r} is a link out of the build context", hint="copy the disk itself into the context")
    return disk


def _instruction(text: str, line: int) -> Instruction:
    name, _, rest = text.partition(" ")
    return Instruction(name=name.upper(), rest=rest.strip(), line=line)


def _refuse_other_escapes(line: str, number: int) -> None:
    if re.fullmatch(r"#\s*escape\s*=\s*[^\\\s].*", line, re.IGNORECASE):
        raise UsageError(f"line {number} of the Dockerfile: another escape character is not supported", hint=_OTHER_ENGINE)


def _base(instruction: Instruction) -> tuple[bool, Platform | None]:
    """Return whether the base image has the directory /disk, and the platform it asks for."""
    words = instruction.words()
    platform: Platform | None = None
    if words and words[0].startswith("--platform="):
        try:
            platform = Platform.parse(words.pop(0).removeprefix("--platform="))
        except ImagekitError as error:
            raise instruction.refused(error.message, hint=error.hint) from error
    if len(words) == 3 and words[1].upper() == "AS":
        words = words[:1]
    if len(words) != 1 or words[0].startswith("--"):
        raise instruction.refused("cannot be read as FROM IMAGE")
    if words[0] == "scratch":
        return False, platform
    if not _BASE.fullmatch(words[0]):
        hint = f"begin with FROM scratch or FROM kubevirt/registry-disk-v1alpha, or {_OTHER_ENGINE}"
        raise instruction.refused(f"the base image {words[0]!r} is not supported", hint=hint)
    return True, platform


def _copy(instruction: Instruction, *, has_directory: bool) -> tuple[str, str]:
    """Return what is copied, and its name in /disk when another one is given."""
    words = instruction.words()
    while words and words[0].startswith("--"):
        flag = words.pop(0)
        if not flag.startswith(_COPY_FLAGS):
            raise instruction.refused(f"the flag {flag!r} is not supported")
    if len(words) != 2 or any(word.startswith("<<") for word in words):
        raise instruction.refused("copies not exactly one file", hint="an image carries one disk: COPY disk.qcow2 /disk/")
    source, destination = words
    is_url = source.startswith(("http://", "https://"))
    if is_url and instruction.name == "COPY":
        raise instruction.refused("COPY does not fetch URLs", hint="use ADD")
    if instruction.name == "ADD" and source.lower().endswith(_ARCHIVE_NAMES):
        raise instruction.refused(f"ADD would unpack {source!r}", hint="unpack the disk first, and COPY it")
    return source, _destination_name(instruction, destination, has_directory=has_directory)


def _destination_name(instruction: Instruction, destination: str, *, has_directory: bool) -> str:
    parts = [part for part in destination.split("/") if part not in ("", ".")]
    names_directory = destination.endswith("/") or has_directory
    if parts == ["disk"] and names_directory:
        return ""
    if len(parts) == 2 and parts[0] == "disk" and parts[1] != ".." and not destination.endswith("/"):
        return parts[1]
    hint = "write /disk/ with a slash at its end" if parts == ["disk"] else "the disk belongs into /disk/"
    raise instruction.refused(f"copies to {destination!r}", hint=hint)


def _assignments(instruction: Instruction) -> dict[str, str]:
    """Return what ``KEY=VALUE …`` or the old ``KEY VALUE`` says."""
    words = instruction.words()
    if len(words) >= 2 and "=" not in words[0]:
        words = [f"{words[0]}={' '.join(words[1:])}"]
    assignments: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise instruction.refused(f"{word!r} is not KEY=VALUE", hint="")
        assignments[key] = checked_text(value, what=key)
    return assignments
