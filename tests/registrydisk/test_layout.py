"""OCI layouts: what we write, others read; what others write, we check; a killed writer harms nobody."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagekit.base.errors import ImageError, NotFoundError, UsageError, VerificationError
from registrydisk.blob import read_blob
from registrydisk.digest import Digest
from registrydisk.layout import LayoutTarget, open_layout_source
from registrydisk.layout_source import ANNOTATION_TAG
from registrydisk.manifest import LARGEST_DOCUMENT_BYTES, OCI_LAYER, Descriptor, parse_manifest
from tests.registrydisk.samples import MemoryImage, write_image
from tests.support.commands import command_environment
from tests.support.prerequisites import require_program

_WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from registrydisk.layout import LayoutTarget
from tests.registrydisk.samples import MemoryImage, write_image
print("ready", flush=True)
for number in itertools.count():
    image = MemoryImage()
    image.add_image(b"%d" % number * 100_000, is_gzip=False)
    write_image(image, LayoutTarget(Path(sys.argv[1]), tag="a"))
"""


@pytest.fixture
def image() -> MemoryImage:
    sample = MemoryImage()
    sample.add_index("linux/amd64", "linux/arm64")
    return sample


def written(path: Path, image: MemoryImage, *, tag: str = "") -> Path:
    write_image(image, LayoutTarget(path, tag=tag))
    return path


def tags(path: Path) -> list[str]:
    return [
        entry.get("annotations", {}).get(ANNOTATION_TAG, "")
        for entry in json.loads((path / "index.json").read_bytes())["manifests"]
    ]


def test_what_was_written_is_read(tmp_path: Path, image: MemoryImage) -> None:
    source = open_layout_source(written(tmp_path / "a" / "b", image, tag="1"), tag="1")
    assert source.read_manifest() == image.read_manifest()
    for digest, raw in image.manifests.items():
        assert source.read_manifest(digest) == raw
    for digest, content in image.blobs.items():
        blob = Descriptor(media_type=OCI_LAYER, digest=digest, size_bytes=len(content))
        assert read_blob(source, blob, most_bytes=1 << 20) == content
        reader = source.open_blob(blob, offset_bytes=3)
        assert reader.read(5) == content[3:8]
        reader.close()


def test_layout_holds_only_what_the_specification_says(tmp_path: Path, image: MemoryImage) -> None:
    path = written(tmp_path / "x", image, tag="1")
    assert {entry.name for entry in path.iterdir()} == {"blobs", "index.json", "oci-layout"}
    assert {entry.name for entry in (path / "blobs" / "sha256").iterdir()} == {
        digest.encoded for digest in (*image.blobs, *image.manifests)
    }
    assert json.loads((path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_tags_live_side_by_side_and_are_replaced(tmp_path: Path) -> None:
    first, second = MemoryImage(), MemoryImage()
    first.add_image(b"1")
    second.add_image(b"2")
    for sample, tag in ((first, "a"), (first, ""), (first, "b"), (second, "a"), (second, "")):
        written(tmp_path, sample, tag=tag)
    assert tags(tmp_path) == ["b", "a", ""]
    assert open_layout_source(tmp_path, tag="a").read_manifest() == second.read_manifest()
    assert open_layout_source(tmp_path, tag="b").read_manifest() == first.read_manifest()


def test_what_others_wrote_into_the_index_stays(tmp_path: Path, image: MemoryImage) -> None:
    written(tmp_path, image, tag="1")
    document = json.loads((tmp_path / "index.json").read_bytes())
    artifact = {**document["manifests"][0], "artifactType": "application/x", "annotations": {"a": "b", ANNOTATION_TAG: "artifact"}}
    (tmp_path / "index.json").write_text(json.dumps({**document, "manifests": [*document["manifests"], artifact], "future": [1]}))
    written(tmp_path, image, tag="1")
    renewed = json.loads((tmp_path / "index.json").read_bytes())
    assert renewed["manifests"] == [artifact, document["manifests"][0]]
    assert renewed["future"] == [1]


def test_without_a_tag_only_one_image_is_clear(tmp_path: Path, image: MemoryImage) -> None:
    written(tmp_path, image, tag="1")
    assert open_layout_source(tmp_path).read_manifest() == image.read_manifest()
    written(tmp_path, image, tag="2")
    with pytest.raises(UsageError, match="has 2 images") as caught:
        open_layout_source(tmp_path).read_manifest()
    assert "its tags: 1, 2" in caught.value.hint


def test_missing_tag_lists_the_others(tmp_path: Path, image: MemoryImage) -> None:
    written(tmp_path, image, tag="1")
    with pytest.raises(NotFoundError, match="no image with the tag '3'") as caught:
        open_layout_source(tmp_path, tag="3").read_manifest()
    assert caught.value.hint == "its tags: 1"


def test_what_is_no_layout_is_neither_read_nor_written(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no directory"):
        open_layout_source(tmp_path / "missing")
    (tmp_path / "letter.txt").touch()
    with pytest.raises(NotFoundError, match="is not an OCI image layout"):
        open_layout_source(tmp_path)
    with pytest.raises(UsageError, match="not empty"):
        LayoutTarget(tmp_path)
    with pytest.raises(UsageError, match="is no directory"):
        LayoutTarget(tmp_path / "letter.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_long_lists_of_tags_are_cut(tmp_path: Path, image: MemoryImage) -> None:
    written(tmp_path, image, tag="1")
    document = json.loads((tmp_path / "index.json").read_bytes())
    (entry,) = document["manifests"]
    document["manifests"] = [{**entry, "annotations": {ANNOTATION_TAG: f"t{number:05}"}} for number in range(10_000)]
    (tmp_path / "index.json").write_text(json.dumps(document))
    with pytest.raises(NotFoundError) as caught:
        open_layout_source(tmp_path, tag="3").read_manifest()
    assert len(caught.value.hint) < 200
    assert caught.value.hint.endswith("t00019 and 9980 more")


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    layout = tmp_path / "layout"
    (layout / name).parent.mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / name).symlink_to(elsewhere)
    with pytest.raises(UsageError, match="is a link"):
        LayoutTarget(layout, tag="1")
    assert not list(elsewhere.iterdir())


def test_a_link_in_a_blobs_place_is_not_the_blob(tmp_path: Path) -> None:
    target = LayoutTarget(tmp_path / "layout")
    digest = Digest.of(b"blob")
    path = tmp_path / "layout" / "blobs" / "sha256" / digest.encoded
    path.symlink_to(tmp_path / "layout" / "oci-layout")
    assert not target.has_blob(digest)
    writer = target.open_blob_writer()
    writer.write(b"blob")
    writer.commit(digest)
    assert path.read_bytes() == b"blob"
    assert target.has_blob(digest)


def test_layout_without_an_image_yet(tmp_path: Path) -> None:
    LayoutTarget(tmp_path)
    with pytest.raises(NotFoundError, match="has no image"):
        open_layout_source(tmp_path).read_manifest()


def test_changed_manifests_are_refused(tmp_path: Path, image: MemoryImage) -> None:
    written(tmp_path, image)
    digest = image.read_manifest().digest
    path = tmp_path / "blobs" / "sha256" / digest.encoded
    path.write_bytes(path.read_bytes().replace(b"amd64", b"amd65"))
    with pytest.raises(VerificationError):
        open_layout_source(tmp_path).read_manifest()
    with pytest.raises(VerificationError):
        open_layout_source(tmp_path).read_manifest(digest)


def test_missing_blobs_are_told(tmp_path: Path, image: MemoryImage) -> None:
    source = open_layout_source(written(tmp_path, image))
    with pytest.raises(NotFoundError, match="lacks the blob"):
        source.open_blob(Descriptor(media_type=OCI_LAYER, digest=Digest.of(b"other"), size_bytes=1))


def test_links_are_not_followed(tmp_path: Path) -> None:
    image = MemoryImage()
    layer = parse_manifest(image.add_image()).layers[0]
    written(tmp_path / "x", image)
    path = tmp_path / "x" / "blobs" / "sha256" / layer.digest.encoded
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="symbolic link"):
        open_layout_source(tmp_path / "x").open_blob(layer)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index.json", b"x" * (LARGEST_DOCUMENT_BYTES + 1)),
        ("index.json", b"[]"),
        ("index.json", b'{"schemaVersion":2,"manifests":[],"x":NaN}'),
        ("index.json", b'{"schemaVersion":2,"manifests":[{"mediaType":"a","digest":"sha256:../../x","size":1}]}'),
        ("oci-layout", b"{}"),
        ("oci-layout", b'{"imageLayoutVersion":"2.0.0"}'),
        ("oci-layout", b""),
    ],
    ids=["large", "list", "no number", "digest", "no version", "version", "empty"],
)
def test_broken_documents_are_refused(tmp_path: Path, image: MemoryImage, name: str, content: bytes) -> None:
    written(tmp_path, image)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError):
        open_layout_source(tmp_path).read_manifest()


def test_aborted_blobs_leave_nothing(tmp_path: Path) -> None:
    target = LayoutTarget(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    writer = target.open_blob_writer()
    writer.write(b"half")
    assert sorted(tmp_path.rglob("*")) != before
    writer.abort()
    writer.abort()
    assert sorted(tmp_path.rglob("*")) == before
    assert not target.has_blob(Digest.of(b"half"))


def test_writers_beside_each_other_lose_no_tag(tmp_path: Path) -> None:
    def write(number: int) -> None:
        image = MemoryImage()
        image.add_image(b"%d" % number)
        written(tmp_path, image, tag=str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(16)))
    assert sorted(tags(tmp_path), key=int) == [str(number) for number in range(16)]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.process
def test_killed_writers_leave_a_sound_layout(tmp_path: Path) -> None:
    """Kill at random moments; whatever the index then names is complete, and the next writer cleans up."""
    moments = random.Random(1)
    path = tmp_path / "x"
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE, env=command_environment()
        )
        with writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(moments.uniform(0.01, 0.15))
            writer.send_signal(signal.SIGKILL)
        LayoutTarget(path)
        assert not list(path.glob(".*.partial"))
        if (path / "index.json").exists():
            source = open_layout_source(path, tag="a")
            manifest = parse_manifest(source.read_manifest())
            assert [read_blob(source, blob, most_bytes=1 << 30) for blob in (manifest.config, *manifest.layers)]
    assert (path / "index.json").exists()


@pytest.mark.process
def test_skopeo_reads_our_layout_and_we_read_skopeos(tmp_path: Path, image: MemoryImage) -> None:
    skopeo = require_program("skopeo")
    ours, theirs = written(tmp_path / "ours", image, tag="1.0"), tmp_path / "theirs"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    arguments = [skopeo, "copy", "--quiet", "--insecure-policy", "--all", f"oci:{ours}:1.0", f"oci:{theirs}:2.0"]
    subprocess.run(arguments, check=True, timeout=60, env=environment)
    source = open_layout_source(theirs, tag="2.0")
    assert source.read_manifest() == image.read_manifest()
    written(theirs, image, tag="3.0")
    assert tags(theirs) == ["2.0", "3.0"]
