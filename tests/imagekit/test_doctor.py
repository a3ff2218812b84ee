"""The doctor looks at this machine, and at machines that lack something."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from imagekit import doctor
from imagekit.base.process import find_program
from imagekit.doctor import Diagnosis, Health
from tests.support.services import RunningDocker


def without(program_start: str) -> Callable[[str], Path | None]:
    """Return a find_program for a machine that lacks some programs."""
    return lambda name: None if name.startswith(program_start) else find_program(name)


def test_python() -> None:
    assert doctor.examine_python((3, 13)).health is Health.OK
    old = doctor.examine_python((3, 9))
    assert (old.health, old.message) == (Health.FAIL, "3.9 is too old")


def test_libraries() -> None:
    present, missing = doctor.examine_libraries(("click", "no-such-library"), lacking=Health.WARN)
    assert present.health is Health.OK
    assert (missing.health, missing.message) == (Health.WARN, "not installed")
    assert "imagekit[launcher]" in missing.hint


@pytest.mark.process
def test_qemu_img_that_is_here() -> None:
    version, zstd = doctor.examine_qemu_img()
    assert version.health is Health.OK
    assert version.message[0].isdigit()
    assert (zstd.name, zstd.health) == ("qcow2 zstd", Health.OK)


def test_qemu_img_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_program", without("qemu-img"))
    (diagnosis,) = doctor.examine_qemu_img()
    assert diagnosis.health is Health.FAIL
    assert "qemu-utils" in diagnosis.hint


def test_emulator_and_libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_program", lambda _: None)
    emulator, libvirt = doctor.examine_emulator(), doctor.examine_libvirt()
    assert (emulator.health, libvirt.health) == (Health.WARN, Health.WARN)
    assert "qemu-system" in emulator.hint
    assert "libvirt-daemon" in libvirt.hint
    monkeypatch.setattr(doctor, "find_program", lambda name: Path("/usr/sbin") / name if name == "virtqemud" else None)
    assert doctor.examine_libvirt().message == "virtqemud"


def test_kvm_is_never_believed(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    assert doctor.examine_kvm(device).health is Health.WARN
    device.touch(mode=0o600)
    diagnosis = doctor.examine_kvm(device)
    assert diagnosis.health is Health.OK
    assert "not proven" in diagnosis.message


@pytest.mark.network
def test_docker_that_does_not_answer(tmp_path: Path) -> None:
    diagnosis = doctor.examine_docker({"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"})
    assert diagnosis.health is Health.WARN
    assert str(tmp_path) in diagnosis.message
    assert "docker.io" in diagnosis.hint
    assert doctor.examine_docker({"DOCKER_HOST": "nonsense://"}).health is Health.WARN


@pytest.mark.docker
def test_docker_that_answers(docker_daemon: RunningDocker) -> None:
    diagnosis = doctor.examine_docker({"DOCKER_HOST": docker_daemon.host})
    assert diagnosis.health is Health.OK
    assert docker_daemon.host in diagnosis.message


@pytest.mark.parametrize(("free", "health"), [(100 * 2**30, Health.OK), (5 * 2**30, Health.WARN), (2**20, Health.FAIL)])
def test_space(free: int, health: Health, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_bytes", lambda _: free)
    diagnosis = doctor.examine_space("cache", tmp_path / "not" / "made" / "yet")
    assert diagnosis.health is health
    assert diagnosis.message.endswith(f"free in {tmp_path}")


def test_credential_files_are_found_where_tools_keep_them(tmp_path: Path) -> None:
    environment = {
        "REGISTRY_AUTH_FILE": "/a/auth.json",
        "XDG_RUNTIME_DIR": "/run/user/7",
        "XDG_CONFIG_HOME": "/c",
        "DOCKER_CONFIG": "/d",
    }
    everywhere = ["/a/auth.json", "/run/user/7/containers/auth.json", "/c/containers/auth.json", "/d/config.json"]
    assert [str(path) for path in doctor.credential_files(environment, home=tmp_path)] == everywhere
    usual = [tmp_path / ".config/containers/auth.json", tmp_path / ".docker/config.json"]
    assert list(doctor.credential_files({}, home=tmp_path)) == usual


def test_credentials_that_others_may_read_are_told(tmp_path: Path) -> None:
    (nothing,) = doctor.examine_credentials({}, home=tmp_path)
    assert nothing.health is Health.OK
    secret = tmp_path / ".docker" / "config.json"
    secret.parent.mkdir()
    secret.write_text("{}")
    secret.chmod(0o644)
    (open_to_all,) = doctor.examine_credentials({}, home=tmp_path)
    assert open_to_all == Diagnosis(
        name="credentials", health=Health.WARN, message=f"{secret} may be read by others", hint=f"chmod 600 {secret}"
    )
    secret.chmod(0o600)
    (private,) = doctor.examine_credentials({}, home=tmp_path)
    assert private.health is Health.OK


@pytest.mark.process
@pytest.mark.network
def test_everything_is_examined_and_each_trouble_has_a_remedy(tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": f"unix://{tmp_path}/none", "HOME": str(tmp_path)}
    diagnoses = doctor.examine(environment, cache=tmp_path)
    found = {diagnosis.name for diagnosis in diagnoses}
    assert found >= {"python", "click", "qemu-img", "emulator", "libvirt", "kvm", "docker", "space: cache", "credentials"}
    silent = [each.name for each in diagnoses if each.health is not Health.OK and not each.hint and each.name != "kvm"]
    assert not silent
    assert os.listdir(tmp_path) == [], "a doctor changes nothing"
