"""One upload at a registry, from its beginning to its commit; how the bytes travel in between is not its matter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit, urlunsplit

from imagekit.base.errors import ImagekitError, VerificationError
from imagekit.base.retry import retry
from imagekit.base.units import KIB
from registrydisk.auth import Scopes
from registrydisk.digest import Digest
from registrydisk.endpoint import Endpoint
from registrydisk.http import HttpRequest, HttpResponse
from registrydisk.origin import redirect_target

OCTETS = {"Content-Type": "application/octet-stream"}
_PIECE_BYTES = 256 * KIB
_STARTED = frozenset({202})
_COMMITTED = frozenset({201, 202, 204})


class Pieces:
    """A body in memory that is sent in pieces, so that the time limit of one send holds for a piece."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __len__(self) -> int:
        return len(self._content)

    def __iter__(self) -> Iterator[bytes]:
        view = memoryview(self._content)
        for start in range(0, len(view), _PIECE_BYTES):
            yield bytes(view[start : start + _PIECE_BYTES])


class UploadSession:
    """One upload at the registry: where it is to be sent next, and who we are there."""

    def __init__(self, endpoint: Endpoint, *, scopes: Scopes) -> None:
        self.endpoint = endpoint
        self.scopes = scopes
        self.smallest_chunk_bytes = 0
        self._location = ""

    def start(self) -> None:
        """Begin the upload, trying again while failures are temporary.

        Raises:
            AccessError: We may not write there.
        """
        endpoint = self.endpoint
        retry(self.start_once, policy=endpoint.access.limits.retry, clock=endpoint.access.clock, on_retry=endpoint.note_retry)

    def start_once(self) -> None:
        """Begin the upload, for callers who try again themselves."""
        request = HttpRequest(method="POST", url=self.endpoint.url("blobs/uploads/"), body=b"", doing=self.endpoint.uploading)
        self.adopt(self.endpoint.send_once(request, scopes=self.scopes, accepted=_STARTED))

    def adopt(self, response: HttpResponse) -> None:
        """Go on where the answer says, and close it."""
        response.close()
        minimum = response.headers.get("OCI-Chunk-Min-Length", "")
        if minimum.isdecimal() and len(minimum) < 12:
            self.smallest_chunk_bytes = int(minimum)
        location = response.headers.get("Location")
        if location is None and self._location:
            return
        self._location = redirect_target(response.url, location, hops=0)

    def url(self, digest: Digest | None = None) -> str:
        """Return where to send to, or where to commit as ``digest``; what the registry put into the query is kept."""
        if digest is None:
            return self._location
        parts = urlsplit(self._location)
        query = "&".join(filter(None, (parts.query, urlencode({"digest": str(digest)}))))
        return urlunsplit(parts._replace(query=query))

    def received_bytes(self) -> int | None:
        """Ask how many bytes the registry has; None when it does not say."""
        request = HttpRequest(method="GET", url=self._location, doing=self.endpoint.uploading)
        response = self.endpoint.send(request, scopes=self.scopes, accepted=frozenset({204, 200}), follows=False)
        self.adopt(response)
        first, dash, last = response.headers.get("Range", "").removeprefix("bytes=").partition("-")
        if not dash or first != "0" or not last.isdecimal() or len(last) > 19:
            return None
        return int(last) + 1

    def commit(self, digest: Digest, body: Pieces | None = None) -> None:
        """Make the blob exist.

        Raises:
            VerificationError: The registry computed another digest.
        """
        limits = self.endpoint.access.limits
        request = HttpRequest(
            method="PUT",
            url=self.url(digest),
            headers=OCTETS,
            body=body if body is not None and len(body) else b"",
            answer_seconds=limits.commit_seconds,
            doing=self.endpoint.uploading,
        )
        try:
            response = self.endpoint.send_once(request, scopes=self.scopes, accepted=_COMMITTED)
        except ImagekitError as error:
            raise self._commit_failure(error, digest) from error
        response.close()
        check_digest(response, digest)

    def cancel(self) -> None:
        """Tell the registry to forget the upload; it forgets by itself in time if this fails."""
        if self._location:
            location, self._location = self._location, ""
            with contextlib.suppress(ImagekitError):
                request = HttpRequest(method="DELETE", url=location)
                self.endpoint.send_once(request, scopes=self.scopes, accepted=frozenset(range(200, 600))).close()

    def _commit_failure(self, error: ImagekitError, digest: Digest) -> ImagekitError:
        if error.reason == "RequestRefused" and "DIGEST_INVALID" in error.message:
            hint = "the bytes were changed on the way; push again"
            return VerificationError(f"the registry received other bytes than were sent: {error.message}", hint=hint)
        return error


def check_digest(response: HttpResponse, digest: Digest) -> None:
    """Raise VerificationError when the answer names another digest of the same algorithm."""
    told = response.headers.get("Docker-Content-Digest", "")
    if told and told.partition(":")[0] == digest.algorithm and told != str(digest):
        raise VerificationError(f"{response.what}: the registry computed {told[:150]!r}, we computed {digest}")
