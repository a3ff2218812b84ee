"""Proving who we are, and to whom never."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from imagekit.base.errors import AccessError, ImagekitError
from registrydisk.access import Credential
from registrydisk.auth import Authenticator
from registrydisk.credentials import FoundCredential, encode_entry
from registrydisk.digest import Digest
from registrydisk.origin import Origin
from tests.registrydisk.remote_access import CANARY, NotedProgress, patient, source, target
from tests.support.fake_clock import FakeClock
from tests.support.fault_registry import PASSWORD, USER, FaultRegistry, fault_registry
from tests.support.fault_server import body, fault_server, none, redirect, status

pytestmark = pytest.mark.network


@pytest.fixture
def faulty() -> Iterator[FaultRegistry]:
    with fault_registry() as running:
        running.put_image("team/disk", "v1", b"layer")
        running.put_image("team/disk", "v2", b"layer two")
        yield running


def auth_file(path: Path, registry: FaultRegistry, credential: Credential) -> Path:
    path.write_text(json.dumps({"auths": {registry.host: encode_entry(credential)}}))
    return path


@pytest.mark.parametrize("demand", ["", "basic", "bearer"])
def test_each_kind_of_registry_lets_us_in(faulty: FaultRegistry, demand: str) -> None:
    faulty.demand = demand
    with closing(source(faulty, credential=CANARY)) as image:
        image.read_manifest()
        image.read_manifest()
    assert len(faulty.seen("manifests")) == (2 if not demand else 3), "what was learned is kept"
    assert faulty.tokens_given == (1 if demand == "bearer" else 0)


def test_credentials_are_not_sent_before_they_are_asked_for(faulty: FaultRegistry) -> None:
    with closing(source(faulty, credential=CANARY)) as image:
        image.read_manifest()
    assert all("authorization" not in request.headers for request in faulty.seen())


def test_a_token_is_asked_for_with_service_and_scope(faulty: FaultRegistry) -> None:
    faulty.demand = "bearer"
    with closing(target(faulty, credential=CANARY)) as image:
        image.has_blob(Digest.of(b""))
    (request,) = faulty.seen("GET /token")
    assert "service=registry%2Cwith+comma" in request.path
    assert "scope=repository%3Ateam%2Fdisk%3Apull%2Cpush" in request.path


def test_mounting_asks_for_the_right_to_read_the_other_repository(faulty: FaultRegistry) -> None:
    faulty.demand = "bearer"
    with closing(target(faulty, credential=CANARY)) as image:
        image.try_mount(Digest.of(b"layer"), "other/disk")
    assert "scope=repository%3Aother%2Fdisk%3Apull" in faulty.seen("GET /token")[0].path


def test_a_token_is_renewed_before_it_expires(faulty: FaultRegistry) -> None:
    faulty.demand = "bearer"
    clock = FakeClock()
    with closing(source(faulty, clock=clock)) as image:
        image.read_manifest()
        clock.advance(289)
        image.read_manifest()
        assert faulty.tokens_given == 1
        clock.advance(2)
        image.read_manifest()
        assert faulty.tokens_given == 2
    assert len([request for request in faulty.seen("manifests") if "authorization" not in request.headers]) == 1


def test_an_identity_token_is_exchanged_by_post(faulty: FaultRegistry, tmp_path: Path) -> None:
    faulty.demand, faulty.is_public = "bearer", False
    path = auth_file(tmp_path / "auth.json", faulty, Credential(username="<token>", identity_token=PASSWORD))
    with closing(source(faulty, auth_file=path)) as image:
        image.read_manifest()
    (request,) = faulty.seen("POST /token")
    assert b"grant_type=refresh_token" in request.body
    assert PASSWORD not in request.path


def test_stored_credentials_that_expired_do_not_keep_us_from_a_public_image(faulty: FaultRegistry, tmp_path: Path) -> None:
    faulty.demand = "bearer"
    path = auth_file(tmp_path / "auth.json", faulty, Credential(username=USER, password="old"))
    progress = NotedProgress()
    with closing(source(faulty, auth_file=path, progress=progress)) as image:
        image.read_manifest()
    assert any("were refused; going on without them" in note for note in progress.notes)


def test_credentials_of_the_command_line_are_never_left_out(faulty: FaultRegistry) -> None:
    faulty.demand = "bearer"
    with (
        closing(source(faulty, credential=Credential(username=USER, password="old"))) as image,
        pytest.raises(AccessError) as caught,
    ):
        image.read_manifest()
    assert caught.value.reason == "Unauthorized"
    assert len(faulty.seen("GET /token")) == 1


def test_stored_credentials_are_not_given_up_where_something_is_written(faulty: FaultRegistry, tmp_path: Path) -> None:
    faulty.demand = "basic"
    path = auth_file(tmp_path / "auth.json", faulty, CANARY)
    faulty.always("HEAD ", status(403))
    with closing(target(faulty, auth_file=path)) as image:
        assert not image.has_blob(Digest.of(b"layer"))
        writer = image.open_blob_writer()
        writer.write(b"blob")
        writer.commit(Digest.of(b"blob"))
    assert Digest.of(b"blob") in faulty.blobs


def test_stored_credentials_are_not_given_up_for_what_the_storage_says(faulty: FaultRegistry, tmp_path: Path) -> None:
    faulty.demand = "basic"
    path = auth_file(tmp_path / "auth.json", faulty, CANARY)
    with fault_server() as storage, closing(source(faulty, auth_file=path)) as image:
        storage.always("GET ", status(403))
        faulty.script("GET .*/manifests/v1", none, redirect(f"{storage.origin}/expired"))
        with pytest.raises(AccessError):
            image.read_manifest()
        image.read_manifest()


def test_the_error_names_what_was_looked_at(faulty: FaultRegistry, tmp_path: Path) -> None:
    faulty.demand = "basic"
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker/config.json").write_text(json.dumps({"credHelpers": {faulty.host: "no-such-helper"}}))
    with closing(source(faulty, environment={"HOME": str(tmp_path)})) as image, pytest.raises(AccessError) as caught:
        image.read_manifest()
    assert "docker-credential-no-such-helper (not installed)" in caught.value.hint
    assert str(tmp_path / ".config/containers/auth.json") in caught.value.hint


@pytest.mark.parametrize(
    "realm",
    [
        "http://{evil}/token",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:1/token",
        "https://evil.example.com/token",
        "https://user:password@{host}/token",
        "file:///etc/passwd",
        "",
    ],
)
def test_f17_a_hijacked_realm_gets_nothing(faulty: FaultRegistry, realm: str) -> None:
    with fault_server() as evil:
        faulty.demand = "bearer"
        faulty.realm = realm.format(evil=evil.host, host=faulty.host) or " "
        with closing(source(faulty, credential=CANARY)) as image, pytest.raises(AccessError) as caught:
            image.read_manifest()
        assert caught.value.reason == "RealmRefused"
        assert evil.seen() == []
    assert all("authorization" not in request.headers for request in faulty.seen())


def test_f17_a_realm_that_the_user_trusts_is_asked(faulty: FaultRegistry) -> None:
    with fault_registry() as tokens, closing(source(faulty, credential=CANARY, token_hosts=(tokens.host,))) as image:
        tokens.valid_tokens = faulty.valid_tokens
        faulty.demand, faulty.realm = "bearer", f"{tokens.origin}/token"
        image.read_manifest()
        assert len(tokens.seen("GET /token")) == 1


def test_f17_a_realm_that_turns_out_to_be_inside_is_refused_on_the_connection() -> None:
    """The name belongs to the registry's domain, but leads to loopback: nothing may be sent."""
    with fault_server() as inside:
        port = inside.host.rpartition(":")[2]
        registry = Origin("https", "registry.localhost.example.com", 443)
        authenticator = Authenticator(
            access=patient(token_hosts=()),
            registry=registry,
            find_credential=lambda: FoundCredential(credential=CANARY, place="a test", is_explicit=True),
            on_note=lambda _: None,
        )
        with closing(authenticator), pytest.MonkeyPatch.context() as patch:
            patch.setattr("registrydisk.auth.check_realm", lambda realm, **_: Origin.of(realm))
            patch.setattr("registrydisk.privacy._resolve", lambda host: ["93.184.216.34"])
            authenticator.challenge(f'Bearer realm="http://127.0.0.1:{port}/token"', ("repository:a:pull",))
            with pytest.raises(AccessError) as caught:
                authenticator.secrets(("repository:a:pull",))
        assert caught.value.reason == "RealmRefused"
        assert inside.seen() == []


def test_a_token_service_that_redirects_elsewhere_gets_no_password(faulty: FaultRegistry) -> None:
    faulty.demand = "bearer"
    with fault_server() as elsewhere, closing(source(faulty, credential=CANARY)) as image:
        elsewhere.put_file("/token", b'{"token": "stolen"}')
        faulty.always("GET /token", redirect(f"{elsewhere.origin}/token"))
        with pytest.raises(ImagekitError):
            image.read_manifest()
        assert all("authorization" not in request.headers for request in elsewhere.seen())


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\nb"}', b"{" * 5000])
def test_a_token_that_is_none_is_an_error(faulty: FaultRegistry, answer: bytes) -> None:
    faulty.demand = "bearer"
    faulty.always("GET /token", body(answer))
    with closing(source(faulty)) as image, pytest.raises(AccessError):
        image.read_manifest()


def test_a_token_answer_without_end_is_cut_off(faulty: FaultRegistry) -> None:
    faulty.demand = "bearer"
    faulty.always("GET /token", body(b" " * 8 * 1024 * 1024))
    with closing(source(faulty)) as image, pytest.raises(ImagekitError) as caught:
        image.read_manifest()
    assert caught.value.reason == "AnswerTooLarge"


def test_trouble_at_the_token_service_is_waited_out(faulty: FaultRegistry) -> None:
    faulty.demand = "bearer"
    faulty.script("GET /token", status(503), status(429, Retry_After="1"))
    with closing(source(faulty)) as image:
        image.read_manifest()


def test_a_registry_that_asks_for_something_else_says_so(faulty: FaultRegistry) -> None:
    faulty.always("GET .*/manifests/", status(401, WWW_Authenticate="Negotiate, Digest qop=auth"))
    with closing(source(faulty, credential=CANARY)) as image, pytest.raises(AccessError) as caught:
        image.read_manifest()
    assert "digest, negotiate" in caught.value.message


def test_no_secret_shows_in_errors_notes_or_values(faulty: FaultRegistry) -> None:
    progress = NotedProgress()
    echo = [
        status(403, body=json.dumps({"errors": [{"code": "DENIED", "message": f"bad password {PASSWORD}{more}"}]}).encode())
        for more in ("", ", header token-1")
    ]
    seen: list[str] = [repr(CANARY), repr(patient(credential=CANARY, environment={"SECRET": PASSWORD}))]
    for demand, fault in zip(("basic", "bearer"), echo, strict=True):
        faulty.demand = demand
        with closing(source(faulty, credential=CANARY, progress=progress)) as image:
            image.read_manifest()
            faulty.script("GET .*/manifests/", fault)
            with pytest.raises(AccessError) as caught:
                image.read_manifest()
        error: BaseException | None = caught.value
        while error is not None:
            seen += [str(error), repr(error), str(vars(error))]
            error = error.__cause__ or error.__context__
    assert "bad password ***" in seen[2]
    assert not [text for text in [*seen, *progress.notes] if PASSWORD in text or "token-1" in text]
