"""The commands as a user types them: what is printed where, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from imagekit.base.units import MIB
from tests.support import images, qemu
from tests.support.commands import Ended, run_measured

pytestmark = pytest.mark.process


class Shell:
    """Runs ``imagekit`` commands in one directory's files."""

    def __init__(self, files: Path, scratch: Path) -> None:
        self.files = files
        self._scratch = scratch

    def __call__(self, *words: str) -> Ended:
        return run_measured(self._scratch, "imagekit", *(word.replace("@", f"{self.files}/") for word in words))

    def document(self, *words: str) -> dict[str, object]:
        ended = self(*words, "-o", "json")
        document = json.loads(ended.stdout)
        assert document.pop("schemaVersion") == 1
        return dict(document)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "files").mkdir()
    return Shell(tmp_path / "files", tmp_path)


@pytest.fixture
def raw(shell: Shell) -> Path:
    return qemu.sample_raw(shell.files / "disk.img")


def test_convert(shell: Shell, raw: Path) -> None:
    ended = shell("convert", "@disk.img", "@disk.qcow2", "--compress", "zstd", "--progress", "plain")
    assert ended.exit_code == 0
    assert ended.stdout.startswith(f"{shell.files}/disk.qcow2: qcow2, 4.0 MiB disk in ")
    assert len(ended.stdout.splitlines()) == 1
    assert "convert  4.0 MiB" in ended.stderr
    document = shell.document("convert", "@disk.qcow2", "@copy", "--to", "vhd", "--progress", "none")
    assert document.pop("allocatedBytes")
    assert document.pop("fileSizeBytes")
    assert document == {"path": f"{shell.files}/copy", "format": "vpc", "virtualSizeBytes": 4 * MIB}
    assert qemu.are_same(shell.files / "copy", "vpc", raw, "raw")


def test_convert_refuses(shell: Shell, raw: Path) -> None:
    assert raw.exists()
    assert shell("convert", "@missing", "@x.img").exit_code == 3
    assert shell("convert", "@disk.img", "@disk.img").exit_code == 2
    assert "--to" in shell("convert", "@disk.img", "@x.bin").stderr
    assert "did you mean 'qcow2'?" in shell("convert", "@disk.img", "@x", "--to", "qcow").stderr
    (shell.files / "evil.qcow2").write_bytes(images.with_backing_file(images.qcow2_image(), "/etc/passwd"))
    ended = shell("convert", "@evil.qcow2", "@x.img")
    assert (ended.exit_code, ended.stdout) == (8, "")
    assert "/etc/passwd" in ended.stderr
    assert "hint:" in ended.stderr


def test_resize(shell: Shell, raw: Path) -> None:
    assert shell("resize", "@disk.img", "+4M").stdout == f"{raw}: raw, 4.0 MiB → 8.0 MiB\n"
    refused = shell("resize", "@disk.img", "1M")
    assert (refused.exit_code, "--shrink" in refused.stderr) == (2, True)
    document = shell.document("resize", "@disk.img", "1M", "--shrink", "--format", "raw")
    assert document == {"path": str(raw), "format": "raw", "oldSizeBytes": 8 * MIB, "newSizeBytes": MIB}


def test_create(shell: Shell) -> None:
    ended = shell("create", "@new.qcow2", "1G", "--cluster-size", "128K")
    assert (ended.exit_code, ended.stdout) == (0, f"{shell.files}/new.qcow2\n")
    assert b'"cluster-size": 131072' in qemu.qemu_img("info", "--output=json", shell.files / "new.qcow2")
    assert shell("create", "@new.qcow2", "1G").exit_code == 2
    assert shell("create", "--force", "@new.qcow2", "2G").exit_code == 0
    assert shell("create", "@other.img", "lots").exit_code == 2


def test_check(shell: Shell, raw: Path) -> None:
    image = qemu.image_of(raw, shell.files / "disk.qcow2", "qcow2")
    assert shell("check", "@disk.qcow2").stdout == f"{image}: clean\n"
    assert "no tables to check" in shell("check", "@disk.img").stdout
    with image.open("r+b") as file:  # refcounts of the clusters in use become zero
        file.seek(2 * 65536 + 2 * 4)
        file.write(b"\0" * 8)
    ended = shell("check", "@disk.qcow2", "-o", "json")
    assert ended.exit_code == 5
    assert json.loads(ended.stdout)["corruptions"] >= 1
    assert "is damaged" in ended.stderr
    repaired = shell("check", "--repair", "all", "@disk.qcow2")
    assert repaired.exit_code == 0, repaired.stderr
    assert "repaired" in repaired.stdout


def test_compare(shell: Shell, raw: Path) -> None:
    copy = shell.files / "copy.img"
    copy.write_bytes(raw.read_bytes())
    same = shell("compare", "@disk.img", "@copy.img", "--progress", "none")
    assert (same.exit_code, same.stdout, same.stderr) == (0, "equal\n", "")
    with copy.open("r+b") as file:
        file.seek(3 * MIB)
        file.write(b"!")
    other = shell("compare", "@disk.img", "@copy.img", "--progress", "none")
    assert (other.exit_code, other.stdout) == (5, f"different, first in the sector at byte {3 * MIB}\n")
    assert "not the same disk" in other.stderr


def test_measure(shell: Shell, raw: Path) -> None:
    assert raw.exists()
    document = shell.document("measure", "--to", "qcow2", "@disk.img")
    assert document.keys() == {"requiredBytes", "fullyAllocatedBytes"}
    assert shell("measure", "@disk.img").stdout == "4.0 MiB now, 4.0 MiB when full\n"


@pytest.mark.network
def test_doctor(shell: Shell) -> None:
    ended = shell("doctor", "-o", "json")
    document = json.loads(ended.stdout)
    is_well = all(check["health"] != "fail" for check in document["checks"])
    assert document["isWell"] is is_well
    assert ended.exit_code == (0 if is_well else 1)
    assert "qemu-img" in shell("doctor").stdout
