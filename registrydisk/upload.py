"""Sending a blob whose bytes are pushed to us: in one request when it is small, streamed or in chunks when it is not.

- Up to 4 MiB are held back; a blob that ends within them is one POST and one PUT, and can be sent again as often as needed.
- A longer one is streamed: one PATCH with chunked transfer coding, fed from a thread through a bounded queue. Its first
  16 MiB are kept, so that a registry which refuses this form, or breaks early, costs nothing.
- A registry that wants chunks gets PATCHes with Content-Range; after a broken one it is asked how far it came.

Memory stays below 32 MiB whatever the blob's size. (distribution-spec 1.1, "Pushing blobs".)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from imagekit.base.errors import AccessError, ImagekitError, NetworkError, VerificationError
from imagekit.base.retry import retry
from imagekit.base.units import MIB
from registrydisk.auth import Scopes
from registrydisk.digest import Digest
from registrydisk.endpoint import Endpoint
from registrydisk.http import HttpRequest, HttpResponse
from registrydisk.upload_session import OCTETS, Pieces, UploadSession
from registrydisk.upload_stream import StreamedBody

_HELD_BYTES = 4 * MIB
_KEPT_BYTES = 16 * MIB
_WRITTEN_BYTES = MIB
_CHUNK_BYTES = 4 * MIB  # the most that the strictest large registry takes in one PATCH
_LARGEST_CHUNK_BYTES = 32 * MIB
_PATCHED = frozenset({201, 202, 204})


class Transmission(Protocol):
    """One way of sending a long blob."""

    def send(self, piece: bytes) -> None:
        """Send the next bytes."""
        ...

    def finish(self) -> None:
        """Wait until the registry has everything."""
        ...

    def stop(self) -> None:
        """Give up."""
        ...


class Streamed:
    """One PATCH for everything (chunked transfer coding), fed from this side piece by piece."""

    def __init__(self, session: UploadSession) -> None:
        self._session = session
        self._body = StreamedBody(self._patch)

    def send(self, piece: bytes) -> None:
        self._body.put(piece)

    def finish(self) -> None:
        self._session.adopt(self._body.finish())

    def stop(self) -> None:
        self._body.stop()

    def _patch(self, body: Iterator[bytes]) -> HttpResponse:
        session = self._session
        request = HttpRequest(
            method="PATCH",
            url=session.url(),
            headers=OCTETS,
            body=body,
            answer_seconds=session.endpoint.access.limits.commit_seconds,
            doing=session.endpoint.uploading,
        )
        return session.endpoint.send_once(request, scopes=session.scopes, accepted=_PATCHED)


class Chunked:
    """A PATCH with Content-Range for each chunk; a broken one is sent again from where the registry stands."""

    def __init__(self, session: UploadSession) -> None:
        self._session = session
        self._size_bytes = max(_CHUNK_BYTES, session.smallest_chunk_bytes)
        if self._size_bytes > _LARGEST_CHUNK_BYTES:
            raise ImagekitError(f"the registry wants chunks of {self._size_bytes} bytes", reason="RequestRefused")
        self._pending = bytearray()
        self._sent_bytes = 0

    def send(self, piece: bytes) -> None:
        self._pending += piece
        while len(self._pending) >= self._size_bytes:
            self._send_chunk(bytes(self._pending[: self._size_bytes]))
            del self._pending[: self._size_bytes]

    def finish(self) -> None:
        if self._pending:
            self._send_chunk(bytes(self._pending))
            self._pending.clear()

    def stop(self) -> None:
        self._pending.clear()

    def _send_chunk(self, chunk: bytes) -> None:
        end_bytes = self._sent_bytes + len(chunk)
        is_first = True

        def attempt() -> None:
            nonlocal is_first
            start_bytes = self._sent_bytes if is_first else self._resume_place(end_bytes)
            is_first = False
            if start_bytes < end_bytes:
                self._patch(chunk[start_bytes - self._sent_bytes :], start_bytes)

        endpoint = self._session.endpoint
        retry(attempt, policy=endpoint.access.limits.retry, clock=endpoint.access.clock, on_retry=endpoint.note_retry)
        self._sent_bytes = end_bytes

    def _resume_place(self, end_bytes: int) -> int:
        received_bytes = self._session.received_bytes()
        # An empty upload is told as "0-0" by some and not at all by others.
        if self._sent_bytes == 0 and received_bytes in (None, 1):
            return 0
        if received_bytes is None or not self._sent_bytes <= received_bytes <= end_bytes:
            raise NetworkError("the registry lost the upload's place", reason="ConnectionReset", temporary=False, hint="push again")
        return received_bytes

    def _patch(self, part: bytes, start_bytes: int) -> None:
        headers = {**OCTETS, "Content-Range": f"{start_bytes}-{start_bytes + len(part) - 1}"}
        session = self._session
        request = HttpRequest(
            method="PATCH", url=session.url(), headers=headers, body=Pieces(part), doing=session.endpoint.uploading
        )
        session.adopt(session.endpoint.send_once(request, scopes=session.scopes, accepted=_PATCHED))


class BlobUpload:
    """A blob on its way to a registry: a BlobWriter.

    Args:
        has_blob: Asked after a commit whose answer was lost.
        chunked_hosts: Registries that refused a streamed upload; shared by the uploads of one target.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        scopes: Scopes,
        has_blob: Callable[[Digest], bool],
        chunked_hosts: set[str],
        session: UploadSession | None = None,
    ) -> None:
        self._session = session or UploadSession(endpoint, scopes=scopes)
        self._is_started = session is not None
        self._has_blob = has_blob
        self._chunked_hosts = chunked_hosts
        self._kept: list[bytes] | None = []
        self._written_bytes = 0
        self._transmission: Transmission | None = None
        self._is_ended = False

    def write(self, data: bytes | memoryview, /) -> None:
        """Add bytes; they are copied.

        Raises:
            NetworkError: The upload broke; the blob must be sent from its beginning.
        """
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _WRITTEN_BYTES):
            self._write_piece(bytes(view[start : start + _WRITTEN_BYTES]))

    def commit(self, digest: Digest) -> None:
        """Make the blob exist under ``digest``.

        Raises:
            VerificationError: The registry received something else.
            NetworkError: The upload broke; the blob must be sent from its beginning.
        """
        if self._transmission is None:
            self._commit_whole(digest)
        else:
            before = self._transmission
            self._guarded(lambda transmission: transmission.finish())
            if self._transmission is not before:  # everything was sent again, but not yet finished
                self._transmission.finish()
            self._commit_session(digest)
        self._is_ended = True
        self._kept = None

    def abort(self) -> None:
        """Forget the upload; safe to call twice and after ``commit``."""
        if self._is_ended:
            return
        self._is_ended = True
        self._kept = None
        if self._transmission is not None:
            self._transmission.stop()
        self._session.cancel()

    def _write_piece(self, piece: bytes) -> None:
        self._written_bytes += len(piece)
        if self._kept is not None:
            self._kept.append(piece)
        if self._transmission is not None:
            self._guarded(lambda transmission: transmission.send(piece))
        elif self._written_bytes > _HELD_BYTES:
            self._transmit()
        if self._written_bytes > _KEPT_BYTES:
            self._kept = None

    def _transmit(self) -> None:
        """Begin to send, and send what was held back."""
        kept = list(self._kept or ())
        if not self._is_started:
            self._session.start()
            self._is_started = True
        is_chunked = self._session.endpoint.host.authority in self._chunked_hosts or self._session.smallest_chunk_bytes > 0
        self._transmission = Chunked(self._session) if is_chunked else Streamed(self._session)

        def send_kept(transmission: Transmission) -> None:
            for piece in kept:
                transmission.send(piece)

        self._guarded(send_kept)

    def _guarded(self, action: Callable[[Transmission], None]) -> None:
        """Do ``action``; when a streamed upload fails while all of it is still kept, send it again in chunks."""
        assert self._transmission is not None
        try:
            action(self._transmission)
        except ImagekitError as error:
            # A 401 here is a token that expired meanwhile: the upload could be begun with it.
            is_expired = error.reason == "Unauthorized"
            if not isinstance(self._transmission, Streamed) or (isinstance(error, AccessError) and not is_expired):
                raise
            if not is_expired:  # refused or broken: chunks are what both cases need
                self._chunked_hosts.add(self._session.endpoint.host.authority)
            if self._kept is None:
                raise _lost(error) from error
            self._resend_in_chunks()

    def _resend_in_chunks(self) -> None:
        assert self._transmission is not None
        self._transmission.stop()
        self._session.cancel()
        self._session = UploadSession(self._session.endpoint, scopes=self._session.scopes)
        self._session.start()
        self._transmission = chunked = Chunked(self._session)
        for piece in self._kept or ():
            chunked.send(piece)

    def _commit_whole(self, digest: Digest) -> None:
        body = Pieces(b"".join(self._kept or ()))

        def attempt() -> None:
            if not self._is_started:
                self._session.start_once()
                self._is_started = True
            try:
                self._session.commit(digest, body)
            except ImagekitError:
                self._is_started = False
                raise

        endpoint = self._session.endpoint
        retry(attempt, policy=endpoint.access.limits.retry, clock=endpoint.access.clock, on_retry=endpoint.note_retry)

    def _commit_session(self, digest: Digest) -> None:
        endpoint = self._session.endpoint

        def attempt() -> None:
            try:
                self._session.commit(digest)
            except ImagekitError as error:
                # The answer to a commit that worked may be lost; then the upload is gone and the blob is there.
                if isinstance(error, VerificationError | AccessError) or not self._has_blob(digest):
                    raise

        retry(attempt, policy=endpoint.access.limits.retry, clock=endpoint.access.clock, on_retry=endpoint.note_retry)


def _lost(error: ImagekitError) -> NetworkError:
    return NetworkError(
        f"the upload broke off: {error.message}",
        reason=error.reason if isinstance(error, NetworkError) else "ConnectionReset",
        hint=error.hint or "send the blob again; it will be sent in chunks if the registry refused the stream",
    )
