"""Tags of images that are in a registry already."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from imagekit.base.errors import UsageError
from imagekit.base.progress import SilentProgress
from registrydisk.access import RegistryAccess
from registrydisk.digest import Digest
from registrydisk.reference import ImageReference
from registrydisk.remote import open_remote_source, open_remote_target


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagged:
    """An image under its new tag."""

    digest: Digest
    pinned: str


def add_tag(reference: ImageReference, tag: str, *, access: RegistryAccess) -> Tagged:
    """Let ``tag`` lead to what ``reference`` leads to, in the same repository.

    Raises:
        UsageError: ``tag`` is none.
        NotFoundError: There is no such image.
    """
    if not tag or any(character in tag for character in "/:@"):
        raise UsageError(f"{tag!r} is not a tag", hint="write the tag alone: `registrydisk tag REGISTRY/NAME:TAG NEW-TAG`")
    renamed = ImageReference.parse(f"{reference.name}:{tag}")
    progress = SilentProgress()
    with closing(open_remote_source(reference, access=access, progress=progress)) as source:
        manifest = source.read_manifest()
    with closing(open_remote_target(renamed, access=access, progress=progress)) as target:
        target.write_manifest(manifest)
    return Tagged(digest=manifest.digest, pinned=str(renamed.with_digest(manifest.digest)))
