"""Every kind of source into a volume with the real tools: what qemu-img reads from both is the same."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
from pathlib import Path

import pytest
import zstandard

from imagekit.base.units import MIB
from tests.support.commands import command_environment, command_line
from tests.support.prerequisites import require_program
from tests.support.qemu import are_same, image_of, sample_raw
from tests.support.services import RunningRegistry

pytestmark = [pytest.mark.process]

FORMATS = {
    "raw": ("raw",),
    "qcow2": ("qcow2",),
    "qcow2 zlib": ("qcow2", "-c"),
    "qcow2 zstd": ("qcow2", "-c", "-o", "compression_type=zstd"),
    "qcow2 v2": ("qcow2", "-o", "compat=0.10"),
    "qcow2 extended": ("qcow2", "-o", "extended_l2=on,cluster_size=128k"),
    "vmdk": ("vmdk",),
    "vmdk stream": ("vmdk", "-o", "subformat=streamOptimized"),
    "vdi": ("vdi",),
    "vhd": ("vpc", "-o", "subformat=dynamic,force_size=on"),
    "vhd fixed": ("vpc", "-o", "subformat=fixed,force_size=on"),
    "vhdx": ("vhdx",),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_raw(tmp_path_factory.mktemp("disk") / "disk.raw", size_bytes=24 * MIB)


@pytest.fixture(scope="module")
def qcow2(raw: Path) -> Path:
    return image_of(raw, raw.with_suffix(".qcow2"), "qcow2")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.mkdir()
    return path


def cdi_import(*arguments: str | Path, stdin: Path | None = None, exit_code: int = 0) -> tuple[dict[str, object], str]:
    """Run ``cdi import`` as a user does, and return its document and what it said."""
    with (stdin or Path(os.devnull)).open("rb") as file:
        ended = subprocess.run(
            command_line("cdi", "import", *map(str, arguments), "-o", "json", "--progress", "plain"),
            env=command_environment(),
            stdin=file,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == exit_code, ended.stderr
    return (json.loads(ended.stdout) if ended.stdout else {}), ended.stderr


def assert_arrived(volume: Path, raw: Path) -> None:
    assert os.listdir(volume) == ["disk.img"]
    assert are_same(raw, "raw", volume / "disk.img", "raw")
    assert (volume / "disk.img").stat().st_size == raw.stat().st_size


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str, raw: Path, tmp_path: Path, volume: Path) -> None:
    image_format, *options = FORMATS[name]
    source = raw if name == "raw" else image_of(raw, tmp_path / "source", image_format, *options)
    result, said = cdi_import(source, volume)
    assert_arrived(volume, raw)
    assert result["format"] == image_format
    assert ("converted by qemu-img, in place" in said) is (image_format not in ("raw", "qcow2"))


@pytest.mark.parametrize("name", ["vmdk stream", "vdi", "vhdx", "vhd"])
def test_formats_that_are_converted_arrive_compressed_too(name: str, raw: Path, tmp_path: Path, volume: Path) -> None:
    image_format, *options = FORMATS[name]
    source = tmp_path / "source.gz"
    source.write_bytes(gzip.compress(image_of(raw, tmp_path / "source", image_format, *options).read_bytes(), 1))
    result, said = cdi_import(source, volume, "--size", "32M")
    assert "from a temporary copy" in said
    assert os.listdir(volume) == ["disk.img"]
    assert are_same(raw, "raw", volume / "disk.img", "raw")
    assert (volume / "disk.img").stat().st_size == result["diskSizeBytes"] == 32 * MIB


@pytest.mark.parametrize("name", ["gz", "xz", "zst", "bz2", "none"])
def test_standard_input(name: str, raw: Path, qcow2: Path, tmp_path: Path, volume: Path) -> None:
    content = qcow2.read_bytes()
    pack = {"gz": gzip.compress, "xz": lzma.compress, "zst": zstandard.compress, "bz2": bz2.compress, "none": bytes}[name]
    source = tmp_path / "packed"
    source.write_bytes(pack(content))
    result, said = cdi_import("-", volume, stdin=source)
    assert_arrived(volume, raw)
    assert result["source"] == "standard input"
    assert result["fetchedBytes"] == source.stat().st_size
    assert "/s" in said


@pytest.fixture(scope="module")
def layout(qcow2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own image of the disk."""
    path = tmp_path_factory.mktemp("layout") / "layout"
    command = command_line("registrydisk", "build", str(qcow2), "-t", f"oci:{path}:1", "--progress=none")
    subprocess.run(command, env=command_environment(), check=True, timeout=120, stdin=subprocess.DEVNULL, capture_output=True)
    return path


def skopeo_copy(source: str, target: str) -> None:
    command = [require_program("skopeo"), "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", source, target]
    subprocess.run(command, check=True, timeout=120, stdin=subprocess.DEVNULL, capture_output=True)


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])
def test_images_in_files(transport: str, layout: Path, raw: Path, tmp_path: Path, volume: Path) -> None:
    source = f"oci:{layout}:1"
    if transport != "oci":
        source = f"{transport}:{tmp_path}/archive.tar"
        skopeo_copy(f"oci:{layout}:1", source + (":a/b:1" if transport == "docker-archive" else ":1"))
    result, _ = cdi_import(source, volume)
    assert_arrived(volume, raw)
    assert result["payloadPath"] == "disk/disk.qcow2"


@pytest.mark.network
@pytest.mark.parametrize("by", ["us", "skopeo"])
def test_an_image_in_a_registry(by: str, layout: Path, raw: Path, volume: Path, registry: RunningRegistry) -> None:
    image = f"docker://{registry.host}/import/{by}:1"
    if by == "skopeo":
        skopeo_copy(f"oci:{layout}:1", image)
    else:
        command = command_line("registrydisk", "push", f"oci:{layout}:1", image, "--progress=none")
        subprocess.run(command, env=command_environment(), check=True, timeout=120, stdin=subprocess.DEVNULL, capture_output=True)
    result, said = cdi_import(image, volume)
    assert_arrived(volume, raw)
    assert str(result["manifestDigest"]).startswith("sha256:")
    assert "import" in said
    pinned = f"docker://{registry.host}/import/{by}@{result['manifestDigest']}"
    cdi_import(pinned, volume, "--overwrite")
    assert_arrived(volume, raw)


@pytest.mark.network
def test_an_image_that_is_not_there(volume: Path, registry: RunningRegistry) -> None:
    _, said = cdi_import(f"docker://{registry.host}/nothing:1", volume, exit_code=3)
    assert said.startswith("error: ") or "\nerror: " in said
    assert os.listdir(volume) == []


def test_errors_say_what_why_and_what_to_do(volume: Path, raw: Path) -> None:
    (volume / "disk.img").write_bytes(b"precious")
    _, said = cdi_import(raw, volume, exit_code=2)
    assert "exists already" in said
    assert "hint: use --overwrite" in said
    _, said = cdi_import(raw, volume / "deep" / "er", exit_code=3)
    assert "there is no directory" in said
    _, said = cdi_import(raw, volume / "x", "--size", "1M", exit_code=7)
    assert "more than the 1.0 MiB" in said


def test_progress_as_json_and_result_as_text(volume: Path, raw: Path) -> None:
    ended = subprocess.run(
        command_line("cdi", "import", str(raw), str(volume), "--progress", "json"),
        env=command_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    last = json.loads(ended.stderr.splitlines()[-1])
    assert last["phase"] == "import"
    assert last["finished"] is True
    assert last["totalBytes"] == raw.stat().st_size
    assert ended.stdout.startswith(f"{volume}/disk.img: 24.0 MiB from raw")


def test_the_worker_leaves_one_report(tmp_path: Path, volume: Path, raw: Path) -> None:
    job, report = tmp_path / "job.json", tmp_path / "report.json"
    command = command_line("cdi", "worker", str(job), str(report), "--progress=none")
    for source, exit_code in ((raw, 0), (raw, 2)):
        job.write_text(json.dumps({"source": str(source), "target": str(volume)}))
        ended = subprocess.run(
            command, env=command_environment(), stdin=subprocess.DEVNULL, timeout=120, capture_output=True, check=False
        )
        assert ended.returncode == exit_code
        document = json.loads(report.read_text())
        if exit_code:
            assert document["result"] is None
            assert document["failure"]["reason"] == "TargetExists"
        else:
            assert document["failure"] is None
            assert document["result"]["diskSizeBytes"] == raw.stat().st_size
    assert_arrived(volume, raw)
