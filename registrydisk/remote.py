"""Images in registries: what is read from them and written to them (distribution-spec 1.1)."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from imagekit.base.errors import AccessError, ImageError, ImagekitError, NetworkError, NotFoundError, UsageError, VerificationError
from imagekit.base.progress import Progress, SilentProgress
from registrydisk.access import RegistryAccess
from registrydisk.digest import Digest
from registrydisk.endpoint import Endpoint
from registrydisk.hosts import find_hosts
from registrydisk.http import HttpRequest, HttpResponse
from registrydisk.manifest import INDEX_TYPES, LARGEST_DOCUMENT_BYTES, MANIFEST_TYPES, Descriptor, RawManifest, parse_document
from registrydisk.pagination import read_pages
from registrydisk.reference import ImageReference
from registrydisk.resume import ResumingReader, range_headers
from registrydisk.store import BlobReader, BlobWriter
from registrydisk.upload import BlobUpload
from registrydisk.upload_session import UploadSession, check_digest

_MANIFEST_ACCEPT = ", ".join(sorted(MANIFEST_TYPES | INDEX_TYPES))
_BODY = frozenset({200, 206, 416})
Result = TypeVar("Result")


def open_remote_source(reference: ImageReference, *, access: RegistryAccess, progress: Progress | None = None) -> RemoteSource:
    """Return the image ``reference`` for reading; nothing is asked before it is needed."""
    return RemoteSource(reference, access=access, progress=progress or SilentProgress())


def open_remote_target(reference: ImageReference, *, access: RegistryAccess, progress: Progress | None = None) -> RemoteTarget:
    """Return the place ``reference`` for writing; nothing is asked before it is needed."""
    return RemoteTarget(reference, access=access, progress=progress or SilentProgress())


class RemoteSource:
    """An image in a registry, or in one of its mirrors: an ImageSource."""

    def __init__(self, reference: ImageReference, *, access: RegistryAccess, progress: Progress) -> None:
        self.reference = reference
        self._progress = progress
        self._endpoints = [Endpoint(host, access=access, progress=progress) for host in find_hosts(reference, access=access)]

    def read_manifest(self, digest: Digest | None = None) -> RawManifest:
        wanted = digest or self.reference.digest
        capability = "pull" if wanted is not None else "resolve"
        return self._first(lambda endpoint: _read_manifest(endpoint, str(wanted or self.reference.tag), wanted), capability)

    def open_blob(self, descriptor: Descriptor, *, offset_bytes: int = 0) -> BlobReader:
        # Asked for here and not at the first read, so that a missing blob is known and the next mirror is tried.
        return self._first(lambda endpoint: self._open_blob(endpoint, descriptor, offset_bytes), "pull")

    def close(self) -> None:
        for endpoint in self._endpoints:
            endpoint.close()

    def _open_blob(self, endpoint: Endpoint, descriptor: Descriptor, offset_bytes: int) -> BlobReader:
        url = endpoint.url(f"blobs/{descriptor.digest}")

        def open_at(offset: int, validator: str) -> HttpResponse:
            # The registry is asked again each time: the place it redirects to may have expired meanwhile.
            headers = range_headers(offset, validator, size_bytes=descriptor.size_bytes)
            request = HttpRequest(method="GET", url=url, headers=headers, doing=f"read the blob {descriptor.digest}")
            return endpoint.send_once(request, scopes=endpoint.pull_scopes(), accepted=_BODY)

        reader = ResumingReader(
            open_at,
            what=f"blob {str(descriptor.digest)[:19]}",
            access=endpoint.access,
            offset_bytes=offset_bytes,
            size_bytes=descriptor.size_bytes,
            is_content_addressed=True,
            on_note=self._progress.note,
        )
        reader.open()
        return reader

    def _first(self, ask: Callable[[Endpoint], Result], capability: str) -> Result:
        """Return the first answer of the mirrors and the registry itself; the registry's failure is the one to tell."""
        *mirrors, own = self._endpoints
        for endpoint in mirrors:
            if capability not in endpoint.host.capabilities:
                continue
            try:
                return ask(endpoint)
            except (NotFoundError, NetworkError, AccessError, VerificationError, ImageError) as error:
                self._progress.note(f"the mirror {endpoint.host.authority} does not have it: {error.message}")
        return ask(own)


class RemoteTarget:
    """A place for one image in a registry: an ImageTarget. Mirrors are never written to."""

    def __init__(self, reference: ImageReference, *, access: RegistryAccess, progress: Progress) -> None:
        self.reference = reference
        self._endpoint = Endpoint(find_hosts(reference, access=access)[-1], access=access, progress=progress)
        self._chunked_hosts: set[str] = set()

    def has_blob(self, digest: Digest) -> bool:
        return _has_blob(self._endpoint, digest)

    def open_blob_writer(self, *, size_bytes: int | None = None) -> BlobWriter:
        return self._upload()

    def try_mount(self, digest: Digest, from_repository: str) -> bool:
        """Return whether the registry took the blob over from another of its repositories, without any bytes sent.

        Raises:
            AccessError: We may not write here.
        """
        endpoint = self._endpoint
        url = f"{endpoint.url('blobs/uploads/')}?mount={digest}&from={from_repository}"
        scopes = endpoint.push_scopes(from_repository)
        try:
            request = HttpRequest(method="POST", url=url, body=b"", doing=endpoint.uploading)
            response = endpoint.send(request, scopes=scopes, accepted=frozenset({201, 202}))
        except (AccessError, NotFoundError):
            return False  # no right to read there; whether we may write here, the upload will tell
        if response.status == 201:
            response.close()
            check_digest(response, digest)
            return True
        session = UploadSession(endpoint, scopes=endpoint.push_scopes())
        session.adopt(response)
        session.cancel()
        return False

    def write_manifest(self, manifest: RawManifest, *, is_top: bool = True) -> None:
        """Store a manifest under the target's tag, or under its digest when it is not the top or there is no tag.

        Raises:
            UsageError: The target is pinned to another digest.
        """
        pinned = self.reference.digest
        if is_top and pinned is not None and pinned != manifest.digest:
            raise UsageError(
                f"the image to be written is {manifest.digest}, but the target says {pinned}", hint="name a tag instead"
            )
        name = self.reference.tag if is_top and self.reference.tag else str(manifest.digest)
        request = HttpRequest(
            method="PUT",
            url=self._endpoint.url(f"manifests/{name}"),
            headers={"Content-Type": manifest.media_type},
            body=manifest.content,
            answer_seconds=self._endpoint.access.limits.answer_seconds,
            doing=f"write the image {_written(self._endpoint, name)}",
        )
        response = self._endpoint.send(request, scopes=self._endpoint.push_scopes(), accepted=frozenset({200, 201, 202}))
        response.close()
        check_digest(response, manifest.digest)

    def close(self) -> None:
        self._endpoint.close()

    def _upload(self) -> BlobUpload:
        endpoint = self._endpoint
        return BlobUpload(endpoint, scopes=endpoint.push_scopes(), has_blob=self.has_blob, chunked_hosts=self._chunked_hosts)


def list_tags(reference: ImageReference, *, access: RegistryAccess, progress: Progress | None = None) -> list[str]:
    """Return the tags of a repository, in the registry's order.

    Raises:
        NotFoundError: There is no such repository.
    """
    with _own_endpoint(reference, access=access, progress=progress) as endpoint:
        try:
            return read_pages(endpoint, "tags/list", key="tags", scopes=endpoint.pull_scopes())
        except NotFoundError as error:
            raise NotFoundError(f"there is no repository {endpoint.repository_name}", hint="check its name") from error


def delete_image(reference: ImageReference, *, access: RegistryAccess, progress: Progress | None = None) -> Digest:
    """Remove the manifest that ``reference`` names, with every tag that points to it; return its digest.

    Raises:
        NotFoundError: There is none.
        ImagekitError: The registry does not allow deleting, with reason DeleteUnsupported.
    """
    with _own_endpoint(reference, access=access, progress=progress) as endpoint:
        digest = reference.digest or _read_manifest(endpoint, reference.tag, None).digest
        scopes = (f"repository:{endpoint.host.repository}:pull,push,delete",)
        doing = f"delete the image {_written(endpoint, str(digest))}"
        request = HttpRequest(method="DELETE", url=endpoint.url(f"manifests/{digest}"), doing=doing)
        response = endpoint.send(request, scopes=scopes, accepted=frozenset({200, 202, 204, 405}))
        response.close()
        if response.status == 405:
            raise ImagekitError(
                f"{endpoint.origin} does not allow images to be deleted",
                reason="DeleteUnsupported",
                hint="its operator must switch it on (distribution: storage.delete.enabled)",
            )
        return digest


@contextlib.contextmanager
def _own_endpoint(reference: ImageReference, *, access: RegistryAccess, progress: Progress | None) -> Iterator[Endpoint]:
    endpoint = Endpoint(find_hosts(reference, access=access)[-1], access=access, progress=progress or SilentProgress())
    with contextlib.closing(endpoint):
        yield endpoint


def _has_blob(endpoint: Endpoint, digest: Digest) -> bool:
    request = HttpRequest(method="HEAD", url=endpoint.url(f"blobs/{digest}"), doing=endpoint.uploading)
    try:
        response = endpoint.send(request, scopes=endpoint.push_scopes(), accepted=frozenset({200, 404, 405}))
    except AccessError:
        return False  # a redirect that forbids HEAD, or a registry that hides what we may not read: sending is always right
    response.close()
    return response.status == 200


def _read_manifest(endpoint: Endpoint, name: str, digest: Digest | None) -> RawManifest:
    image, headers = _written(endpoint, name), {"Accept": _MANIFEST_ACCEPT}
    request = HttpRequest(method="GET", url=endpoint.url(f"manifests/{name}"), headers=headers, doing=f"read the image {image}")
    try:
        response = endpoint.send(request, scopes=endpoint.pull_scopes())
    except NotFoundError as error:
        hint = f"`registrydisk list {endpoint.repository_name}` shows the tags that there are"
        raise NotFoundError(f"there is no image {image}", hint=hint) from error
    told = response.headers.get("Docker-Content-Digest", "")
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    try:
        content = response.read_all(most_bytes=LARGEST_DOCUMENT_BYTES)
    except ImagekitError as error:
        if error.reason == "AnswerTooLarge":
            raise ImageError(f"the manifest {name} is larger than {LARGEST_DOCUMENT_BYTES} bytes", reason="BadManifest") from error
        raise
    _check_manifest(content, expected=digest, what=f"the manifest {name}")
    if told.startswith(("sha256:", "sha512:")):
        _check_manifest(content, expected=Digest.parse(told), what=f"the manifest {name} (by the registry's own header)")
    return RawManifest(media_type=_media_type(content, media_type), content=content)


def _written(endpoint: Endpoint, name: str) -> str:
    """Return an image as a user writes it; ``name`` is its tag or digest."""
    return f"{endpoint.repository_name}{'@' if ':' in name else ':'}{name}"


def _check_manifest(content: bytes, *, expected: Digest | None, what: str) -> None:
    if expected is None:
        return
    got = Digest(expected.algorithm, hashlib.new(expected.algorithm, content).hexdigest())
    if got != expected:
        raise VerificationError(
            f"{what} is not what its digest says: expected {expected}, got {got}", hint="pull again, or ask its publisher"
        )


def _media_type(content: bytes, announced: str) -> str:
    """Return what the document is; its own word counts where the registry's header is generic."""
    known = MANIFEST_TYPES | INDEX_TYPES
    if announced in known:
        return announced
    own = parse_document(content, what="the manifest").get("mediaType")
    if isinstance(own, str) and own in known:
        return own
    raise ImageError(
        f"the manifest is of the unsupported type {(announced or own or 'none')!r}"[:300],
        reason="BadManifest",
        hint="images in Docker's first manifest format must be pushed again by a current tool",
    )
