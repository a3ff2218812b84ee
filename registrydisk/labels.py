"""What is written about a disk into an image: labels, environment and annotations.

Clusters read instance types from a label, and from the environment when only the node pulled the image; so both are
written. ``shasum`` is what publishers of disk images compare to see whether anything changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from imagekit.base.errors import UsageError
from imagekit.image import DiskFormat
from registrydisk.digest import Digest

LABEL_PAYLOAD_SHA256 = "shasum"
LABEL_INSTANCETYPE = "instancetype.kubevirt.io/default-instancetype"
LABEL_INSTANCETYPE_KIND = f"{LABEL_INSTANCETYPE}-kind"
LABEL_PREFERENCE = "instancetype.kubevirt.io/default-preference"
LABEL_PREFERENCE_KIND = f"{LABEL_PREFERENCE}-kind"

ANNOTATION_CREATED = "org.opencontainers.image.created"
ANNOTATION_TITLE = "org.opencontainers.image.title"
ANNOTATION_FORMAT = "io.imagekit.disk.format"
ANNOTATION_VIRTUAL_SIZE = "io.imagekit.disk.virtual-size"
ANNOTATION_SHA256 = "io.imagekit.disk.sha256"
ANNOTATION_COMPRESSION = "io.imagekit.disk.compression"

_KINDS = {
    "virtualmachineinstancetype": "VirtualMachineInstancetype",
    "virtualmachineclusterinstancetype": "VirtualMachineClusterInstancetype",
    "virtualmachinepreference": "VirtualMachinePreference",
    "virtualmachineclusterpreference": "VirtualMachineClusterPreference",
}
_OBJECT_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_TEXT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """What the annotations tell of a disk; ``sha256`` is of its bytes in the image."""

    title: str
    format: DiskFormat
    virtual_size_bytes: int
    sha256: Digest
    compression: str
    created: str

    def annotations(self) -> dict[str, str]:
        """Return the manifest's annotations."""
        return {
            ANNOTATION_CREATED: self.created,
            ANNOTATION_TITLE: self.title,
            ANNOTATION_FORMAT: self.format.value,
            ANNOTATION_VIRTUAL_SIZE: str(self.virtual_size_bytes),
            ANNOTATION_SHA256: self.sha256.encoded,
            ANNOTATION_COMPRESSION: self.compression,
        }


def instancetype_labels(*, instancetype: str = "", preference: str = "") -> dict[str, str]:
    """Return the labels for ``[kind/]name``, as virtctl writes it; nothing for empty texts.

    Raises:
        UsageError: A kind is unknown or does not fit, or a name is no name of a Kubernetes object.
    """
    labels: dict[str, str] = {}
    for text, label, label_kind, word in (
        (instancetype, LABEL_INSTANCETYPE, LABEL_INSTANCETYPE_KIND, "instancetype"),
        (preference, LABEL_PREFERENCE, LABEL_PREFERENCE_KIND, "preference"),
    ):
        if not text:
            continue
        kind, slash, name = text.rpartition("/")
        if slash:
            if not kind.lower().endswith(word) or kind.lower() not in _KINDS:
                raise UsageError(
                    f"{kind!r} is not a kind of {word}",
                    hint=f"write NAME, virtualmachine{word}/NAME or virtualmachinecluster{word}/NAME",
                )
            labels[label_kind] = _KINDS[kind.lower()]
        if not _OBJECT_NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be the name of a {word}", hint="use lower-case letters, digits, dashes and dots")
        labels[label] = name
    return labels


def environment_of(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that repeat the instance type labels: upper case, everything else an underscore."""
    wanted = (LABEL_INSTANCETYPE, LABEL_INSTANCETYPE_KIND, LABEL_PREFERENCE, LABEL_PREFERENCE_KIND)
    return {re.sub(r"[^A-Z0-9]", "_", label.upper()): labels[label] for label in wanted if label in labels}


def parse_assignments(texts: tuple[str, ...], *, option: str) -> dict[str, str]:
    """Return the map that repeated ``KEY=VALUE`` options write.

    Raises:
        UsageError: One has no ``=``, no key, or control characters.
    """
    assignments: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} {text!r} is not KEY=VALUE")
        assignments[key] = checked_text(value, what=f"{option} {key}")
    return assignments


def checked_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return ``variables`` when their names can be names of environment variables."""
    for name in variables:
        if not _VARIABLE_NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot be the name of an environment variable")
    return dict(variables)


def checked_text(text: str, *, what: str) -> str:
    """Return ``text`` when it is short and has no control characters, which would forge lines in others' output."""
    if len(text) > _LONGEST_TEXT or any(ord(character) < 32 for character in text):
        raise UsageError(f"the value of {what} is too long or has control characters")
    return text
