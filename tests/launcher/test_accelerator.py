"""KVM counts where the guest of one sector ran, and the sector is what its source says."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagekit.base.errors import ToolError
from imagekit.base.process import ProcessLimits, run
from launcher import accelerator
from launcher.accelerator import AcceleratorChoice, choose_accelerator, is_kvm_proven, probe_arguments, runs_probe
from launcher.spec import Accelerator
from tests.support.prerequisites import require_program

LIMITS = ProcessLimits(timeout_seconds=30)


@pytest.mark.process
def test_sector_is_assembled_from_its_source(tmp_path: Path) -> None:
    require_program("as")
    require_program("ld")
    source = Path(accelerator.__file__).with_name("kvm_probe.S")
    run(["as", "-o", str(tmp_path / "o"), str(source)], purpose="assemble", limits=LIMITS)
    link = ["ld", "-Ttext", "0x7c00", "--oformat", "binary", "-o", str(tmp_path / "bin"), str(tmp_path / "o")]
    run(link, purpose="link", limits=LIMITS)
    made = (tmp_path / "bin").read_bytes()
    assert made == accelerator._BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa"


@pytest.mark.process
def test_sector_runs_to_its_end_under_emulation() -> None:
    """So that a failure under KVM is KVM's."""
    require_program("qemu-system-x86_64")
    assert runs_probe(Accelerator.TCG)


@pytest.mark.process
def test_guest_that_does_not_get_there_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    require_program("qemu-system-x86_64")
    monkeypatch.setattr(accelerator, "_BOOT_SECTOR", b"\xf4\xeb\xfd")  # hlt; jmp -3
    monkeypatch.setattr(accelerator, "_LIMITS", ProcessLimits(timeout_seconds=1))
    assert not runs_probe(Accelerator.TCG)


def test_probe_lies_where_the_next_run_finds_it_when_this_one_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def killed(arguments: list[str], **_: object) -> None:
        directory = Path(arguments[-1].removeprefix("file=").partition(",")[0]).parent
        seen.extend([directory, directory / "lock"])
        assert all(path.exists() for path in seen)
        raise ToolError("killed")

    monkeypatch.setattr(accelerator, "run", killed)
    assert not runs_probe(Accelerator.TCG)
    assert len(seen) == 2
    assert not any(path.exists() for path in seen)


def test_answer_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files ``yes`` and ``no`` are believed while the question is the same; nothing is started then."""
    monkeypatch.setattr(accelerator, "_DEVICE", Path("/dev/null"))
    kept = tmp_path / "kvm" / accelerator._question()
    kept.parent.mkdir()
    for content, expected in ((b"yes\n", True), (b"no\n", False)):
        kept.write_bytes(content)
        assert is_kvm_proven(tmp_path) is expected
    assert choose_accelerator(AcceleratorChoice.AUTO, cache=tmp_path) is Accelerator.TCG
    with pytest.raises(ToolError, match="does not run a guest"):
        choose_accelerator(AcceleratorChoice.KVM, cache=tmp_path)
    monkeypatch.setattr(accelerator, "_DEVICE", Path("/dev/zero"))
    assert not (tmp_path / "kvm" / accelerator._question()).exists()


def test_no_device_no_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "_DEVICE", tmp_path / "absent")
    assert not is_kvm_proven(tmp_path)
    assert choose_accelerator(AcceleratorChoice.TCG, cache=tmp_path) is Accelerator.TCG


def test_arguments() -> None:
    arguments = probe_arguments(Path("/x"), Accelerator.KVM)
    assert arguments[1:3] == ["-accel", "kvm"]
    assert arguments[-1] == "file=/x,format=raw,if=floppy"
