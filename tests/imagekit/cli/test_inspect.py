"""``imagekit inspect`` as a user meets it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from imagekit.base.errors import ImageError, NotFoundError, VerificationError
from imagekit.cli.main import group
from tests.support import images


def inspect(*arguments: str | Path) -> Result:
    return CliRunner().invoke(group, ["inspect", *map(str, arguments)])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(images.qcow2_image(images.gpt(("root", 34, 2000)), compression="zlib"))
    return path


def test_text(image: Path) -> None:
    result = inspect(image)
    assert result.exit_code == 0
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()[1:]]
    assert result.stdout.startswith(f"{image}\n")
    assert ["format", "qcow2"] in lines
    assert ["verdict", "safe"] in lines
    assert "1.0 MiB (1048576 bytes)" in result.stdout
    assert "100.0% of the clusters" in result.stdout
    assert "'root'" in result.stdout


def test_json_and_yaml_are_the_same_document(image: Path) -> None:
    document = json.loads(inspect(image, "-o", "json").stdout)
    assert yaml.safe_load(inspect(image, "-o", "yaml").stdout) == document
    assert document["schemaVersion"] == 1
    assert document["isSafe"] is True
    assert document["format"] == "qcow2"
    assert document["virtualSizeBytes"] == 1 << 20
    assert document["clusterSizeBytes"] == 65536
    assert document["partitions"][0]["label"] == "root"
    assert document["details"]["compressionType"] == "zlib"
    assert document["findings"] == []


def test_an_unsafe_image_is_reported_and_then_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil"
    path.write_bytes(images.with_backing_file(images.qcow2_image(nb_snapshots=2), "/etc/passwd"))
    result = inspect(path, "-o", "json")
    assert isinstance(result.exception, ImageError)
    assert result.exception.exit_code == 8
    document = json.loads(result.stdout)
    assert document["isSafe"] is False
    assert [finding["rule"] for finding in document["findings"]] == ["backing-file", "snapshots"]
    text = inspect(path).stdout
    assert "verdict                 unsafe" in text
    assert "/etc/passwd" in text


def test_what_cannot_be_read_is_reported_too(tmp_path: Path) -> None:
    path = tmp_path / "old.qed"
    path.write_bytes(b"QED\0".ljust(4096, b"\0"))
    result = inspect(path, "-o", "json")
    assert isinstance(result.exception, ImageError)
    assert json.loads(result.stdout)["findings"][0]["rule"] == "UnsupportedFormat"
    assert "QED" in inspect(path).stdout


def test_a_damaged_file_is_reported_too(tmp_path: Path) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(images.qcow2_image())[:-1])
    result = inspect(path, "-o", "json")
    assert isinstance(result.exception, VerificationError)
    assert result.exception.message == f"{path}: the gzip stream ends early"
    assert json.loads(result.stdout)["findings"] == [{"rule": "TruncatedStream", "message": "the gzip stream ends early"}]


def test_a_missing_image_is_not_found(tmp_path: Path) -> None:
    result = inspect(tmp_path / "missing")
    assert isinstance(result.exception, NotFoundError)
    assert result.stdout == ""


def test_no_escape_sequence_of_an_image_reaches_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07"
    samples = [
        images.with_backing_file(images.qcow2_image(), evil),
        images.vmdk_descriptor(2048, subformat=evil),
        images.vmdk_image(descriptor=images.vmdk_descriptor(2048, extents=[f'RW 2048 SPARSE "{evil}"'])),
        images.gpt((evil, 34, 99)),
        images.iso_image(evil),
    ]
    for number, sample in enumerate(samples):
        path = tmp_path / str(number)
        path.write_bytes(sample)
        assert "\x1b" not in inspect(path).stdout


def test_a_name_that_is_not_utf_8_can_be_printed(image: Path) -> None:
    odd = image.with_name("disk\udcff.qcow2")
    image.rename(odd)
    for output, load in (("json", json.loads), ("yaml", yaml.safe_load)):
        assert load(inspect(odd, "-o", output).stdout_bytes)["path"] == str(odd)
    assert r"disk\udcff.qcow2" in inspect(odd).stdout


def test_help_has_an_example() -> None:
    assert "imagekit inspect fedora.qcow2" in inspect("--help").stdout
