"""Names of images, and of the places that hold them, in skopeo's notation."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from imagekit.base.errors import ImageError, UsageError
from registrydisk.digest import Digest

DOCKER_HUB = "docker.io"
_REGISTRY_ALIASES = {"index.docker.io": DOCKER_HUB, "registry-1.docker.io": DOCKER_HUB}
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_REGISTRY = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")
_PORT = re.compile(r"\d{1,5}/")
_LONGEST_REPOSITORY = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """An image in a registry: ``registry/repository[:tag][@digest]``; a digest wins over a tag."""

    registry: str
    repository: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Return the reference that ``text`` writes, with docker's defaults (docker.io, library/, latest).

        Raises:
            UsageError: It is not a reference.
        """
        name, at, digest_text = text.partition("@")
        digest = _parse_digest(digest_text, text) if at else None
        registry, repository = _split_registry(name)
        repository, tag = _split_tag(repository)
        if registry == DOCKER_HUB and "/" not in repository:
            repository = f"library/{repository}"
        if not _REGISTRY.fullmatch(registry) or len(repository) > _LONGEST_REPOSITORY or not _REPOSITORY.fullmatch(repository):
            hint = "write registry/name:tag in lower case, like quay.io/me/fedora:42"
            raise UsageError(f"{text!r} is not an image reference", hint=hint)
        if tag and not _TAG.fullmatch(tag):
            raise UsageError(f"{tag!r} is not a tag", hint="a tag has 1 to 128 letters, digits, dots, dashes and underscores")
        if not tag and digest is None:
            tag = "latest"
        return cls(registry=registry, repository=repository, tag=tag, digest=digest)

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def selector(self) -> str:
        """What a registry is asked for: the digest, else the tag."""
        return str(self.digest) if self.digest is not None else self.tag

    def with_digest(self, digest: Digest) -> ImageReference:
        """Return the same image pinned to ``digest``."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


class Transport(StrEnum):
    """A kind of place that holds images."""

    DOCKER = "docker"
    OCI = "oci"
    OCI_ARCHIVE = "oci-archive"
    DOCKER_ARCHIVE = "docker-archive"
    DOCKER_DAEMON = "docker-daemon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where an image is.

    Written ``docker://REF``, ``oci:DIR[:tag]``, ``oci-archive:FILE[:tag]``, ``docker-archive:FILE[:REF]`` or ``docker-daemon:REF``.
    ``reference`` is set for docker and docker-daemon, ``path`` for the others; ``tag`` is what follows a path, or empty.
    """

    transport: Transport
    reference: ImageReference | None = None
    path: Path | None = None
    tag: str = ""

    @classmethod
    def parse(cls, text: str, *, default: Transport | None = None) -> Location:
        """Return the place that ``text`` writes; ``default`` is meant when no transport is written.

        Raises:
            UsageError: It names no known transport, no path or no valid reference.
        """
        scheme, colon, rest = text.partition(":")
        if not colon or scheme not in set(Transport):
            if default is None:
                names = ", ".join(f"{name.value}:" for name in Transport)
                raise UsageError(f"{text!r} has no transport", hint=f"begin with one of {names} (docker:// for a registry)")
            transport, rest = default, f"//{text}" if default is Transport.DOCKER else text
        else:
            transport = Transport(scheme)
        if transport is Transport.DOCKER:
            return cls(transport=transport, reference=_parse_registry_image(rest))
        if transport is Transport.DOCKER_DAEMON:
            return cls(transport=transport, reference=ImageReference.parse(rest))
        path, _, tag = rest.partition(":")
        if not path or path.startswith("//"):
            hint = f"write {transport.value}:PATH or {transport.value}:PATH:TAG, without // before the path"
            raise UsageError(f"{text!r} names no path", hint=hint)
        return cls(transport=transport, path=Path(path), tag=tag)

    def pinned(self, digest: Digest) -> str:
        """Return the one line that names exactly what is there now; a registry's needs no transport."""
        if self.transport is Transport.DOCKER and self.reference is not None:
            return str(self.reference.with_digest(digest))
        return f"{self}@{digest}"

    def __str__(self) -> str:
        if self.transport is Transport.DOCKER:
            return f"docker://{self.reference}"
        place = str(self.reference) if self.reference else str(self.path)
        return f"{self.transport.value}:{place}" + (f":{self.tag}" if self.tag else "")


def registry_reference(text: str) -> ImageReference:
    """Return the image in a registry that ``text`` names, with or without ``docker://``.

    Raises:
        UsageError: It names another place.
    """
    location = Location.parse(text, default=Transport.DOCKER)
    if location.transport is not Transport.DOCKER or location.reference is None:
        raise UsageError(
            f"{text} is not in a registry", hint="write REGISTRY/NAME:TAG; `registrydisk copy` moves between other places"
        )
    return location.reference


def parse_registry(text: str) -> str:
    """Return the registry that a user names alone, as to log in there.

    Raises:
        UsageError: It is none. A word without a dot or a port is none in references either, and means Docker Hub there.
    """
    name = _REGISTRY_ALIASES.get(text, text)
    if not _is_registry(name) or not _REGISTRY.fullmatch(name):
        hint = "write its host alone, like quay.io or localhost:5000, without a scheme and a repository"
        raise UsageError(f"{text!r} is not a registry", hint=hint)
    return name


def _parse_registry_image(text: str) -> ImageReference:
    """Return the image that follows ``docker:``, unless something else was probably meant."""
    name = text.removeprefix("//")
    if name == text:
        raise UsageError(f"'docker:{text}' lacks the slashes of docker://", hint="write docker://REGISTRY/NAME:TAG")
    if "://" in name:
        raise UsageError(f"{name!r} is a URL, and an image has none", hint="leave the scheme out: write REGISTRY/NAME:TAG")
    first, colon, rest = name.partition("@")[0].partition(":")
    if "/" not in first + rest and ("." in first or first == "localhost"):
        raise UsageError(f"{name!r} names a registry, and no image in it", hint=f"write {name}/NAME:TAG")
    if colon and not _PORT.match(rest) and (near := difflib.get_close_matches(first, list(Transport), n=1, cutoff=0.65)):
        hint = f"write {near[0]}: if that is meant, or a registry before the name"
        raise UsageError(f"{name!r} begins with a word that is no transport", hint=hint)
    return ImageReference.parse(name)


def _split_registry(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and _is_registry(first):
        return _REGISTRY_ALIASES.get(first, first), rest
    return DOCKER_HUB, name


def _is_registry(name: str) -> bool:
    """Return whether the first part of a name is a registry and not a repository of Docker Hub."""
    return "." in name or ":" in name or name == "localhost"


def _split_tag(name: str) -> tuple[str, str]:
    head, slash, last = name.rpartition("/")
    repository, colon, tag = last.partition(":")
    if colon and not tag:
        raise UsageError(f"{name!r} ends with a colon", hint="write a tag after it, or leave it out")
    return f"{head}{slash}{repository}", tag


def _parse_digest(digest: str, text: str) -> Digest:
    try:
        return Digest.parse(digest)
    except ImageError as error:
        raise UsageError(f"{text[:300]!r} does not end with a digest", hint=error.hint) from error
