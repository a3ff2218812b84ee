"""A registry in this process (distribution-spec 1.1) whose answers can be spoilt; on ``tests.support.fault_server``.

    with fault_registry() as registry:
        image = registry.put_image("team/disk", "v1", b"layer bytes")
        registry.script("GET .*/blobs/", drop_after(5))
        ...
        assert registry.blobs[image.layer.digest] == b"layer bytes"

``demand="basic"`` or ``"bearer"`` asks for ``USER:PASSWORD``; public repositories give tokens to everybody.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from registrydisk.digest import Digest
from registrydisk.manifest import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, RawManifest
from tests.support.fault_server import Answer, FaultServer, Recorded, fault_server

USER, PASSWORD = "canary-user", "canary-p4ssw0rd"
_ROUTES = (
    (re.compile(r"/v2/"), "root"),
    (re.compile(r"/token"), "token"),
    (re.compile(r"/v2/(?P<repository>.+)/tags/list"), "tags"),
    (re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<name>[^/]+)"), "manifest"),
    (re.compile(r"/v2/(?P<repository>.+)/blobs/uploads/(?P<session>\d*)"), "upload"),
    (re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<digest>[^/]+)"), "blob"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image that the registry holds."""

    raw: RawManifest
    manifest: Manifest
    layer: Descriptor


class FaultRegistry(FaultServer):
    """A registry's state: blobs, manifests, uploads, and whom it lets in.

    Attributes:
        demand: ``""``, ``"basic"`` or ``"bearer"``.
        realm: What a bearer challenge names; the registry's own /token when empty.
        most_patch_bytes: A longer PATCH, or one without Content-Range, is refused.
        chunk_minimum: The OCI-Chunk-Min-Length to announce.
    """

    def __init__(self) -> None:
        super().__init__(self._respond)
        self.blobs: dict[Digest, bytes] = {}
        self.manifests: dict[tuple[str, str], RawManifest] = {}
        self.uploads: dict[str, bytearray] = {}
        self.demand = ""
        self.realm = ""
        self.is_public = True
        self.most_patch_bytes: int | None = None
        self.chunk_minimum = 0
        self.tokens_given = 0
        self.valid_tokens: set[str] = set()
        self.token_lifetime_seconds = 300

    def put_blob(self, content: bytes) -> Digest:
        """Hold ``content``."""
        digest = Digest.of(content)
        self.blobs[digest] = content
        return digest

    def put_manifest(self, repository: str, tag: str, raw: RawManifest) -> None:
        """Hold a manifest under a tag and its digest."""
        self.manifests[repository, tag] = self.manifests[repository, str(raw.digest)] = raw

    def put_image(self, repository: str, tag: str, layer: bytes) -> StoredImage:
        """Hold an image of one layer."""
        config = b'{"architecture":"amd64","os":"linux"}'
        config_descriptor = Descriptor(media_type=OCI_CONFIG, digest=self.put_blob(config), size_bytes=len(config))
        descriptor = Descriptor(media_type=OCI_LAYER, digest=self.put_blob(layer), size_bytes=len(layer))
        manifest = Manifest(media_type=OCI_MANIFEST, config=config_descriptor, layers=(descriptor,))
        raw = manifest.to_raw()
        self.put_manifest(repository, tag, raw)
        return StoredImage(raw=raw, manifest=manifest, layer=descriptor)

    def _respond(self, request: Recorded) -> Answer:
        path = urlsplit(request.path).path
        for pattern, name in _ROUTES:
            if match := pattern.fullmatch(path):
                if name != "token" and (refusal := self._refusal(request)) is not None:
                    return refusal
                answer = getattr(self, f"_{name}")(request, **match.groupdict())
                assert isinstance(answer, Answer)
                return answer
        return self._serve_file(request)

    def _refusal(self, request: Recorded) -> Answer | None:
        given = request.headers.get("authorization", "")
        if self.demand == "basic" and given != _basic(USER, PASSWORD):
            return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="registry"'})
        if self.demand == "bearer" and given.removeprefix("Bearer ") not in self.valid_tokens:
            realm = self.realm or f"{self.origin}/token"
            return Answer(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="registry,with comma"'})
        return None

    def _token(self, request: Recorded) -> Answer:
        given = request.headers.get("authorization", "")
        form = parse_qs(request.body.decode())
        is_known = given == _basic(USER, PASSWORD) or form.get("refresh_token") == [PASSWORD]
        wants_write = "push" in request.path or "push" in request.body.decode()
        if (given and not is_known) or (not is_known and (wants_write or not self.is_public)):
            return Answer(status=401, body=_errors("UNAUTHORIZED", "wrong credentials"))
        self.tokens_given += 1
        token = f"token-{self.tokens_given}"
        self.valid_tokens.add(token)
        return Answer(body=json.dumps({"token": token, "expires_in": self.token_lifetime_seconds}).encode())

    def _root(self, request: Recorded) -> Answer:
        return Answer(body=b"{}")

    def _tags(self, request: Recorded, *, repository: str) -> Answer:
        tags = sorted(name for owner, name in self.manifests if owner == repository and ":" not in name)
        return Answer(body=json.dumps({"name": repository, "tags": tags}).encode())

    def _manifest(self, request: Recorded, *, repository: str, name: str) -> Answer:
        if request.method == "PUT":
            raw = RawManifest(media_type=request.headers["content-type"], content=request.body)
            self.put_manifest(repository, name, raw)
            return Answer(status=201, headers={"Docker-Content-Digest": str(raw.digest)})
        found = self.manifests.get((repository, name))
        if found is None:
            return Answer(status=404, body=_errors("MANIFEST_UNKNOWN", "manifest unknown"))
        if request.method == "DELETE":
            self.manifests = {key: raw for key, raw in self.manifests.items() if raw != found}
            return Answer(status=202)
        return Answer(body=found.content, headers={"Content-Type": found.media_type, "Docker-Content-Digest": str(found.digest)})

    def _blob(self, request: Recorded, *, repository: str, digest: str) -> Answer:
        content = self.blobs.get(Digest.parse(digest))
        return Answer(status=404, body=_errors("BLOB_UNKNOWN", "blob unknown")) if content is None else Answer(body=content)

    def _upload(self, request: Recorded, *, repository: str, session: str) -> Answer:
        if request.method == "POST":
            return self._begin(repository)
        if session not in self.uploads:
            return Answer(status=404, body=_errors("BLOB_UPLOAD_UNKNOWN", "upload unknown"))
        received = self.uploads[session]
        location = {"Location": f"/v2/{repository}/blobs/uploads/{session}?_state=a%2Fb"}
        match request.method:
            case "GET":
                return Answer(status=204, headers={**location, "Range": f"0-{max(len(received) - 1, 0)}"})
            case "DELETE":
                del self.uploads[session]
                return Answer(status=204)
            case "PATCH" if (refusal := self._patch_refusal(request, received)) is not None:
                return refusal
        received += request.body
        if request.method == "PATCH":
            return Answer(status=202, headers={**location, "Range": f"0-{len(received) - 1}"})
        return self._commit(request, session)

    def _begin(self, repository: str) -> Answer:
        session = str(len(self.uploads) + 1)
        self.uploads[session] = bytearray()
        headers = {"Location": f"/v2/{repository}/blobs/uploads/{session}?_state=a%2Fb"}
        if self.chunk_minimum:
            headers["OCI-Chunk-Min-Length"] = str(self.chunk_minimum)
        return Answer(status=202, headers=headers)

    def _patch_refusal(self, request: Recorded, received: bytearray) -> Answer | None:
        place = request.headers.get("content-range", "")
        if self.most_patch_bytes is not None and (not place or request.body_bytes > self.most_patch_bytes):
            return Answer(status=413, body=_errors("SIZE_INVALID", "send chunks"))
        if place and int(place.partition("-")[0]) != len(received):
            return Answer(status=416)
        return None

    def _commit(self, request: Recorded, session: str) -> Answer:
        assert "_state=a%2Fb" in request.path, "the upload's own query was lost"
        wanted = parse_qs(urlsplit(request.path).query)["digest"][0]
        content = bytes(self.uploads.pop(session))
        digest = Digest.of(content)
        if str(digest) != wanted:
            return Answer(status=400, body=_errors("DIGEST_INVALID", "provided digest did not match uploaded content"))
        self.blobs[digest] = content
        return Answer(status=201, headers={"Docker-Content-Digest": str(digest)})


@contextlib.contextmanager
def fault_registry(*, tls: ssl.SSLContext | None = None) -> Iterator[FaultRegistry]:
    """Run a registry on loopback while the context lasts."""
    state = FaultRegistry()
    with fault_server(state=state, tls=tls):
        yield state


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _errors(code: str, message: str, detail: Any = None) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": detail}]}).encode()
