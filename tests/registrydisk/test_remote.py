"""The registry client against a real registry, and against one that fails in every way we know of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from imagekit.base.errors import AccessError, ImageError, ImagekitError, NetworkError, NotFoundError, UsageError, VerificationError
from imagekit.base.units import MIB
from registrydisk.digest import Digest, VerifyingStream
from registrydisk.manifest import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    RawManifest,
    canonical_json,
    parse_manifest,
)
from registrydisk.reference import ImageReference
from registrydisk.remote import RemoteSource, delete_image, list_tags, open_remote_source, open_remote_target
from tests.registrydisk.remote_access import CANARY, NotedProgress, patient, reference, source, target
from tests.support.fault_registry import FaultRegistry, fault_registry
from tests.support.fault_server import (
    body,
    drop_after,
    fault_server,
    flip,
    header,
    ignore_range,
    no_length,
    redirect,
    reset_after,
    status,
)
from tests.support.services import RunningRegistry

pytestmark = pytest.mark.network
LAYER = os.urandom(3 * MIB + 17)


@pytest.fixture
def faulty() -> Iterator[FaultRegistry]:
    with fault_registry() as running:
        yield running


def read_layer(image: RemoteSource, descriptor: Descriptor, *, verify: bool = True) -> bytes:
    with closing(image.open_blob(descriptor)) as blob:
        stream = (
            VerifyingStream(blob, digest=descriptor.digest, size_bytes=descriptor.size_bytes, what="the layer") if verify else blob
        )
        content = bytearray()
        while chunk := stream.read(MIB):
            content += chunk
    return bytes(content)


@pytest.mark.process
@pytest.mark.parametrize("size_bytes", [0, 1, MIB, 4 * MIB, 4 * MIB + 1, 20 * MIB])
def test_a_real_registry_gives_back_what_was_pushed(registry: RunningRegistry, size_bytes: int) -> None:
    content = os.urandom(size_bytes)
    name = ImageReference.parse(f"{registry.host}/team/sizes:s{size_bytes}")
    config = b"{}"
    with closing(open_remote_target(name, access=patient())) as pushed:
        for blob in (content, config):
            writer = pushed.open_blob_writer()
            for start in range(0, len(blob), 300_000):
                writer.write(memoryview(blob)[start : start + 300_000])
            writer.commit(Digest.of(blob))
            writer.abort()
        assert pushed.has_blob(Digest.of(content))
        assert not pushed.has_blob(Digest.of(b"something else"))
        layer = Descriptor(media_type=OCI_LAYER, digest=Digest.of(content), size_bytes=size_bytes)
        top = Descriptor(media_type=OCI_CONFIG, digest=Digest.of(config), size_bytes=len(config))
        manifest = Manifest(media_type=OCI_MANIFEST, config=top, layers=(layer,)).to_raw()
        pushed.write_manifest(manifest)
    with closing(open_remote_source(name, access=patient())) as pulled:
        assert pulled.read_manifest() == manifest
        assert pulled.read_manifest(manifest.digest) == manifest
        assert read_layer(pulled, parse_manifest(manifest).layers[0]) == content
        with closing(pulled.open_blob(layer, offset_bytes=size_bytes // 2)) as tail:
            assert b"".join(iter(lambda: tail.read(MIB), b"")) == content[size_bytes // 2 :]


@pytest.mark.process
def test_a_real_registry_lists_mounts_and_deletes(registry: RunningRegistry) -> None:
    name = ImageReference.parse(f"{registry.host}/team/lists:one")
    other = ImageReference.parse(f"{registry.host}/team/mounted:one")
    blob = Digest.of(b"{}")
    layer = Descriptor(media_type=OCI_CONFIG, digest=blob, size_bytes=2)
    manifest = Manifest(media_type=OCI_MANIFEST, config=layer, layers=(layer,)).to_raw()
    with closing(open_remote_target(name, access=patient())) as pushed:
        writer = pushed.open_blob_writer(size_bytes=2)
        writer.write(b"{}")
        writer.commit(blob)
        pushed.write_manifest(manifest)
    with closing(open_remote_target(other, access=patient())) as mounted:
        assert not mounted.try_mount(Digest.of(b"nowhere"), "team/lists")
        assert mounted.try_mount(blob, "team/lists")
        assert mounted.has_blob(blob)
    assert list_tags(name, access=patient()) == ["one"]
    assert delete_image(name, access=patient()) == manifest.digest
    with closing(open_remote_source(name, access=patient())) as gone, pytest.raises(NotFoundError) as caught:
        gone.read_manifest()
    assert caught.value.message == f"there is no image {name}"
    assert f"registrydisk list {registry.host}/team/lists" in caught.value.hint


def test_f11_a_manifest_over_four_mebibytes_is_refused_unread(faulty: FaultRegistry) -> None:
    huge = canonical_json({"schemaVersion": 2, "filler": "x" * (4 * MIB)})
    faulty.put_manifest("team/disk", "v1", RawManifest(media_type=OCI_MANIFEST, content=huge + b" " * 20 * MIB))
    with closing(source(faulty)) as image, pytest.raises(ImageError) as caught:
        image.read_manifest()
    assert caught.value.reason == "BadManifest"
    assert faulty.sent_bytes < 16 * MIB


@pytest.mark.parametrize("media_type", ["text/html", "application/vnd.docker.distribution.manifest.v1+prettyjws", ""])
def test_f11_a_document_of_an_unknown_type_is_refused(faulty: FaultRegistry, media_type: str) -> None:
    faulty.put_manifest("team/disk", "v1", RawManifest(media_type=media_type, content=b'{"schemaVersion":1}'))
    with closing(source(faulty)) as image, pytest.raises(ImageError) as caught:
        image.read_manifest()
    assert caught.value.reason == "BadManifest"


def test_a_generic_content_type_gives_way_to_the_documents_own(faulty: FaultRegistry) -> None:
    image = faulty.put_image("team/disk", "v1", b"layer")
    faulty.script("GET .*/manifests/", header(Content_Type="application/json"))
    with closing(source(faulty)) as pulled:
        assert pulled.read_manifest() == image.raw


def test_f11_a_digest_that_is_a_path_is_refused(faulty: FaultRegistry) -> None:
    evil = b'{"schemaVersion":2,"mediaType":"%b","config":{},"layers":[]}' % OCI_MANIFEST.encode()
    faulty.put_manifest("team/disk", "v1", RawManifest(media_type=OCI_MANIFEST, content=evil))
    faulty.always("GET .*/manifests/", header(Docker_Content_Digest="sha256:../../../etc/passwd"))
    with closing(source(faulty)) as image, pytest.raises(ImageError) as caught:
        image.read_manifest()
    assert caught.value.reason == "BadManifest"


def test_f12_a_changed_manifest_is_refused_by_digest_and_by_the_registrys_own_header(faulty: FaultRegistry) -> None:
    stored = faulty.put_image("team/disk", "v1", b"layer")
    faulty.always("GET .*/manifests/", flip(60))
    with closing(source(faulty)) as image:
        for digest in (stored.raw.digest, None):
            with pytest.raises(VerificationError) as caught:
                image.read_manifest(digest)
            assert caught.value.reason == "DigestMismatch"
            assert str(stored.raw.digest) in caught.value.message


def test_f12_a_flipped_bit_in_a_layer_is_found(faulty: FaultRegistry) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    faulty.script("GET .*/blobs/", flip(MIB))
    with closing(source(faulty)) as image, pytest.raises(VerificationError) as caught:
        read_layer(image, stored.layer)
    assert caught.value.reason == "DigestMismatch"


@pytest.mark.parametrize("fault", [drop_after(2 * MIB), reset_after(2 * MIB), drop_after(0)], ids=["fin", "rst", "at-once"])
def test_f13_a_broken_layer_goes_on_from_its_last_good_byte(faulty: FaultRegistry, fault: object) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    faulty.script("GET .*/blobs/", fault)  # type: ignore[arg-type]  # parametrize knows no types
    progress = NotedProgress()
    with closing(source(faulty, progress=progress)) as image:
        assert read_layer(image, stored.layer) == LAYER
    assert len(faulty.seen("GET .*/blobs/")) == 2
    assert any("going on from byte" in note for note in progress.notes)


def test_f13_many_breaks_do_not_fetch_more_than_five_percent_again(faulty: FaultRegistry) -> None:
    content = os.urandom(16 * MIB)
    stored = faulty.put_image("team/disk", "v1", content)
    faulty.script("GET .*/blobs/", *[drop_after(MIB + 5000)] * 12)
    with closing(source(faulty)) as image:
        assert read_layer(image, stored.layer) == content
    assert faulty.sent_bytes <= 1.05 * len(content)


def test_f13_a_body_that_is_shorter_than_promised_goes_on(faulty: FaultRegistry) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    faulty.script("GET .*/blobs/", body(LAYER[:MIB]))  # with a Content-Length that agrees
    with closing(source(faulty)) as image:
        assert read_layer(image, stored.layer) == LAYER


def test_f13_a_layer_that_never_comes_is_a_network_error(faulty: FaultRegistry) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    faulty.always("GET .*/blobs/", drop_after(0))
    with closing(source(faulty)) as image, pytest.raises(NetworkError) as caught:
        read_layer(image, stored.layer)
    assert caught.value.reason == "ConnectionReset"
    assert len(faulty.seen("GET .*/blobs/")) <= 8


def test_a_layer_longer_than_promised_is_refused(faulty: FaultRegistry) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    faulty.always("GET .*/blobs/", body(LAYER + b"more"))
    with closing(source(faulty)) as image, pytest.raises(VerificationError) as caught:
        read_layer(image, stored.layer)
    assert caught.value.reason == "SizeMismatch"


@pytest.mark.parametrize("fault", [ignore_range(), header(Content_Range="bytes 7-9/10"), status(416)], ids=["200", "wrong", "416"])
def test_f14_a_registry_without_ranges_is_read_again_and_skipped(faulty: FaultRegistry, fault: object) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    faulty.script("GET .*/blobs/", drop_after(MIB), fault)  # type: ignore[arg-type]  # parametrize knows no types
    with closing(source(faulty)) as image:
        assert read_layer(image, stored.layer) == LAYER


def test_f14_a_registry_that_restarts_with_other_bytes_is_found_out(faulty: FaultRegistry) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    faulty.script("GET .*/blobs/", drop_after(MIB), ignore_range())
    faulty.put_blob(LAYER)
    with closing(source(faulty)) as image, closing(image.open_blob(stored.layer)) as blob:
        blob.read(4096)
        faulty.blobs[stored.layer.digest] = bytes(len(LAYER))
        restarted = b"".join(iter(lambda: blob.read(MIB), b""))
    assert restarted != LAYER[4096:], "so that the digest fails"


def test_f15_a_layer_elsewhere_is_fetched_without_credentials(faulty: FaultRegistry) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    faulty.demand = "basic"
    with fault_server() as storage, closing(source(faulty, credential=CANARY)) as image:
        storage.put_file("/stored", LAYER)
        storage.script("GET /stored", drop_after(MIB))
        faulty.always("GET .*/blobs/", redirect(f"{storage.origin}/stored?signature=s3cret"))
        assert read_layer(image, stored.layer) == LAYER
        assert len(storage.seen()) == 2
        assert all("authorization" not in request.headers for request in storage.seen())
    assert len(faulty.seen("GET .*/blobs/")) >= 2, "an address that may expire is asked for again"


def test_f15_a_presigned_address_that_expires_is_renewed(faulty: FaultRegistry) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    with fault_server() as storage, closing(source(faulty)) as image:
        storage.put_file("/first", LAYER)
        storage.put_file("/second", LAYER)
        storage.script("GET /first", drop_after(MIB))
        faulty.script("GET .*/blobs/", redirect(f"{storage.origin}/first"), redirect(f"{storage.origin}/second"))
        assert read_layer(image, stored.layer) == LAYER
        assert [request.path for request in storage.seen()] == ["/first", "/second"]


def test_f18_foreign_addresses_in_a_manifest_are_never_asked(faulty: FaultRegistry) -> None:
    with fault_server() as evil, closing(source(faulty)) as image:
        stored = faulty.put_image("team/disk", "v1", b"layer")
        document = stored.raw.content.replace(b'"layers":[{', b'"layers":[{"urls":["%b/layer"],' % evil.origin.encode())
        faulty.put_manifest("team/disk", "v1", RawManifest(media_type=OCI_MANIFEST, content=document))
        manifest = parse_manifest(image.read_manifest())
        assert read_layer(image, manifest.layers[0]) == b"layer"
        assert evil.seen() == []


def test_f20_bursts_of_server_errors_are_waited_out(faulty: FaultRegistry) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    for what in ("manifests", "blobs"):
        faulty.script(f"GET .*/{what}/", status(500), status(502), status(503), status(504))
    with closing(source(faulty)) as image:
        assert image.read_manifest() == stored.raw
        assert read_layer(image, stored.layer) == LAYER


def test_f20_a_layer_in_chunks_without_a_length_is_read(faulty: FaultRegistry) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    faulty.always("GET .*/blobs/", no_length())
    with closing(source(faulty)) as image:
        assert read_layer(image, stored.layer) == LAYER


@pytest.mark.parametrize("code", [403, 405])
def test_f20_a_registry_that_forbids_head_is_pushed_to(faulty: FaultRegistry, code: int) -> None:
    faulty.always("HEAD ", status(code))
    with closing(target(faulty)) as image:
        assert not image.has_blob(Digest.of(b"blob"))


def test_a_missing_layer_is_known_when_it_is_opened(faulty: FaultRegistry) -> None:
    missing = Descriptor(media_type=OCI_LAYER, digest=Digest.of(b"missing"), size_bytes=7)
    with closing(source(faulty)) as image, pytest.raises(NotFoundError):
        image.open_blob(missing)


def test_a_manifest_is_not_written_over_a_pin(faulty: FaultRegistry) -> None:
    raw = RawManifest(media_type=OCI_MANIFEST, content=b"{}")
    with closing(target(faulty, f"team/disk@{Digest.of(b'other')}")) as image, pytest.raises(UsageError):
        image.write_manifest(raw)


def test_only_the_top_manifest_gets_the_tag(faulty: FaultRegistry) -> None:
    with closing(target(faulty)) as image:
        part = RawManifest(media_type=OCI_MANIFEST, content=b"{}")
        image.write_manifest(part, is_top=False)
        top = RawManifest(media_type=OCI_MANIFEST, content=b"[]")
        image.write_manifest(top)
    assert faulty.manifests["team/disk", "v1"] == top
    assert [request.path.rpartition("/")[2] for request in faulty.seen("PUT ")] == [str(part.digest), "v1"]


def test_refusals_say_what_was_wanted_in_a_users_words(faulty: FaultRegistry) -> None:
    name = reference(faulty)
    faulty.script("GET .*/tags/list", status(404))
    with pytest.raises(NotFoundError, match=f"there is no repository {name.name}"):
        list_tags(name, access=patient(is_plain_http=True))
    faulty.script("(POST|PUT) ", status(405), status(405))
    with closing(target(faulty)) as pushed:
        writer = pushed.open_blob_writer(size_bytes=2)
        writer.write(b"{}")
        with pytest.raises(ImagekitError, match=f"cannot upload to {name.name}: {faulty.host} answered 405") as caught:
            writer.commit(Digest.of(b"{}"))
        assert "read-only" in caught.value.hint
        with pytest.raises(ImagekitError, match=f"cannot write the image {name}: "):
            pushed.write_manifest(RawManifest(media_type=OCI_MANIFEST, content=b"{}"))
    faulty.demand = "basic"
    faulty.is_public = False
    with closing(source(faulty)) as image, pytest.raises(AccessError, match=f"cannot read the image {name}: "):
        image.read_manifest()


def test_a_registry_that_cannot_delete_says_what_to_do(faulty: FaultRegistry) -> None:
    faulty.put_image("team/disk", "v1", b"layer")
    faulty.always("DELETE ", status(405))
    with pytest.raises(ImagekitError) as caught:
        delete_image(reference(faulty), access=patient(is_plain_http=True))
    assert caught.value.reason == "DeleteUnsupported"
    assert "storage.delete.enabled" in caught.value.hint


def test_a_mirror_is_asked_first_and_the_registry_when_it_has_nothing(faulty: FaultRegistry, tmp_path: Path) -> None:
    stored = faulty.put_image("team/disk", "v1", LAYER)
    with fault_registry() as mirror:
        mirror.put_manifest("cache/disk", "v1", stored.raw)
        (tmp_path / "containers").mkdir()
        (tmp_path / "containers/registries.conf").write_text(
            f'[[registry]]\nprefix = "{faulty.host}/team"\nlocation = "{faulty.host}/team"\ninsecure = true\n'
            f'[[registry.mirror]]\nlocation = "{mirror.host}/cache"\ninsecure = true\n'
        )
        progress = NotedProgress()
        access = patient(system_directory=tmp_path, credential=CANARY)
        with closing(open_remote_source(reference(faulty), access=access, progress=progress)) as image:
            assert image.read_manifest() == stored.raw
            assert faulty.seen("manifests") == []
            assert read_layer(image, stored.layer) == LAYER
        assert all("authorization" not in request.headers for request in mirror.seen())
    assert any("mirror" in note for note in progress.notes)


def test_a_blocked_registry_is_never_asked(faulty: FaultRegistry, tmp_path: Path) -> None:
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/registries.conf").write_text(f'[[registry]]\nlocation = "{faulty.host}"\nblocked = true\n')
    with pytest.raises(AccessError) as caught:
        open_remote_source(reference(faulty), access=patient(system_directory=tmp_path))
    assert caught.value.reason == "Forbidden"
    assert faulty.seen() == []
