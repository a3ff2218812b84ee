"""References follow docker's defaults, locations skopeo's notation, and everything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImagekitError, UsageError
from registrydisk.digest import Digest
from registrydisk.reference import ImageReference, Location, Transport, registry_reference

DIGEST = Digest.of(b"x")
COMPONENT = st.from_regex(r"[a-z0-9]+([._-][a-z0-9]+)?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag"),
    [
        ("fedora", "docker.io", "library/fedora", "latest"),
        ("me/fedora:42", "docker.io", "me/fedora", "42"),
        ("docker.io/fedora", "docker.io", "library/fedora", "latest"),
        ("index.docker.io/me/x", "docker.io", "me/x", "latest"),
        ("localhost/x:1", "localhost", "x", "1"),
        ("localhost:5000/a/b/c", "localhost:5000", "a/b/c", "latest"),
        ("quay.io/me/a__b--c.d:V1_2.x-y", "quay.io", "me/a__b--c.d", "V1_2.x-y"),
        ("[::1]:5000/x:2", "[::1]:5000", "x", "2"),
        (f"quay.io/x@{DIGEST}", "quay.io", "x", ""),
        (f"quay.io/x:1@{DIGEST}", "quay.io", "x", "1"),
    ],
)
def test_reference_has_dockers_defaults(text: str, registry: str, repository: str, tag: str) -> None:
    reference = ImageReference.parse(text)
    assert (reference.registry, reference.repository, reference.tag) == (registry, repository, tag)
    assert ImageReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    ["", ":1", "UPPER/x", "quay.io/", "quay.io/a//b", "quay.io/a/../b", "quay.io/-a", "quay.io/a:", "a b", "x:" + "t" * 129, "x:.t",
     "quay.io/x\n", "http://quay.io/x", "quay.io:port/x", "quay.io/" + "a" * 256, "quay.io/x@sha256:12", "x@", "user@host/x"],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        ImageReference.parse(text)


@given(
    st.lists(COMPONENT, min_size=1, max_size=4), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True), st.booleans()
)
@settings(max_examples=100)
def test_references_survive_printing(parts: list[str], tag: str, is_pinned: bool) -> None:
    text = f"registry.example:5000/{'/'.join(parts)}:{tag}" + (f"@{DIGEST}" if is_pinned else "")
    reference = ImageReference.parse(text)
    assert str(reference) == text
    assert reference.selector == (str(DIGEST) if is_pinned else tag)


@given(st.text(max_size=60))
@settings(max_examples=200)
def test_any_text_parses_or_is_refused_in_our_words(text: str) -> None:
    try:
        reference = ImageReference.parse(text)
    except ImagekitError:
        return
    assert ImageReference.parse(str(reference)) == reference
    assert ".." not in reference.repository.split("/")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci:a/b", Location(transport=Transport.OCI, path=Path("a/b"))),
        ("oci:/a/b:1", Location(transport=Transport.OCI, path=Path("/a/b"), tag="1")),
        ("oci-archive:x.tar:v1", Location(transport=Transport.OCI_ARCHIVE, path=Path("x.tar"), tag="v1")),
        (
            "docker-archive:x.tar:quay.io/me/x:1",
            Location(transport=Transport.DOCKER_ARCHIVE, path=Path("x.tar"), tag="quay.io/me/x:1"),
        ),
        ("docker-daemon:me/x:1", Location(transport=Transport.DOCKER_DAEMON, reference=ImageReference.parse("me/x:1"))),
        ("docker://quay.io/x", Location(transport=Transport.DOCKER, reference=ImageReference.parse("quay.io/x"))),
    ],
)
def test_location(text: str, expected: Location) -> None:
    location = Location.parse(text)
    assert location == expected
    assert Location.parse(str(location)) == location


@pytest.mark.parametrize("text", ["x", "quay.io/x:1", "ftp:x", "oci:", "oci-archive::tag", "docker://"])
def test_what_is_no_location_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Location.parse(text)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("ocl:layout:1", "no transport", "oci:"),
        ("docker-archve:x.tar", "no transport", "docker-archive:"),
        ("docker:/quay.io/x", "lacks the slashes", "docker://"),
        ("https://quay.io/x", "is a URL", "REGISTRY/NAME:TAG"),
        ("127.0.0.1:5000", "names a registry", "127.0.0.1:5000/NAME:TAG"),
        ("localhost", "names a registry", "localhost/NAME:TAG"),
        ("oci://layout:1", "names no path", "without //"),
    ],
)
def test_slips_of_the_pen_are_answered(text: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Location.parse(text, default=Transport.DOCKER)
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ["dockers:5000/x", "fedora", "fedora:42", "oc.example/x:1", "localhost/x"])
def test_names_that_only_look_like_slips_are_taken(text: str) -> None:
    assert Location.parse(text, default=Transport.DOCKER).reference == ImageReference.parse(text)


def test_default_transport_is_meant_when_none_is_written() -> None:
    assert Location.parse("quay.io/x:1", default=Transport.DOCKER) == Location.parse("docker://quay.io/x:1")
    assert registry_reference("docker://quay.io/x:1") == registry_reference("quay.io/x:1") == ImageReference.parse("quay.io/x:1")


def test_other_places_are_no_registry() -> None:
    with pytest.raises(UsageError, match="is not in a registry"):
        registry_reference("oci:x:1")


def test_pinned_names_say_what_is_there() -> None:
    assert Location.parse("docker://quay.io/x:1").pinned(DIGEST) == f"quay.io/x:1@{DIGEST}"
    assert Location.parse("oci:x:1").pinned(DIGEST) == f"oci:x:1@{DIGEST}"
