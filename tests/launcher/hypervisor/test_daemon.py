"""The libvirtd of our own: whom it runs as, what it accepts, and that two of them do not meet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from launcher.account import account_options
from launcher.directory import run_directory
from launcher.domain import domain_xml
from launcher.hypervisor.daemon import LibvirtDaemon, _copy_capabilities, _end_of, emulator, libvirt_daemon
from launcher.spec import Firmware
from launcher.subreaper import adoption, reaping
from tests.launcher.domain.test_domain import SPECS
from tests.support.prerequisites import missing, require_program

pytestmark = [pytest.mark.boot, pytest.mark.xdist_group("boot")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@contextlib.contextmanager
def running(cache: Path) -> Iterator[LibvirtDaemon]:
    require_program("libvirtd")
    with run_directory() as directory:
        root = directory / "libvirt"
        root.mkdir()
        with adoption(), libvirt_daemon(root, cache=cache) as daemon, reaping(daemon.process.pid):
            yield daemon


@pytest.fixture
def daemon(cache: Path) -> Iterator[LibvirtDaemon]:
    with running(cache) as daemon:
        yield daemon


@pytest.mark.parametrize("name", SPECS)
def test_libvirt_accepts_the_domain(daemon: LibvirtDaemon, cache: Path, name: str) -> None:
    """The schema is checked as well as what libvirt makes of it; EFI only where its firmware is installed."""
    if SPECS[name].firmware is Firmware.EFI and not list(Path("/usr/share/qemu/firmware").glob("*x86_64*")):
        missing("EFI firmware (ovmf)")
    connection = libvirt.open(daemon.uri)
    try:
        text = domain_xml(SPECS[name], emulator=str(emulator(daemon.root, cache=cache)))
        if SPECS[name].accelerator.value == "kvm":
            text = text.replace('type="kvm"', 'type="qemu"', 1).replace("host-passthrough", "maximum")
        domain = connection.defineXMLFlags(text, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
        assert domain.name() == "machine"
    finally:
        connection.close()
    assert list((daemon.root / "cache/libvirt/qemu/cache/capabilities").glob("*.xml"))


def test_what_libvirt_learnt_of_qemu_is_kept(tmp_path: Path) -> None:
    with running(tmp_path) as first:
        assert known(first) == {}
        ask(first, tmp_path)
        learnt = known(first)
        assert learnt
    with running(tmp_path) as second:
        before = known(second)
        assert before.keys() == learnt.keys()
        ask(second, tmp_path)
        assert known(second) == before


def test_what_lies_in_place_of_libvirts_files_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("4711")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    assert [_end_of(tmp_path / name) for name in ("pipe", "link", "absent", "secret")] == ["", "", "", "4711"]


@pytest.mark.parametrize("is_link", [True, False], ids=["a link", "a file of the wrong owner"])
def test_only_libvirts_own_files_are_kept(tmp_path: Path, is_link: bool) -> None:
    """The daemon's directory is nobody's; what is read there for root must not be another's secret."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "own.xml").write_bytes(b"<own/>")
    if is_link:
        (source / "evil.xml").symlink_to(secret)
    owner = os.geteuid() if is_link else os.geteuid() + 1
    _copy_capabilities(source, target, owner=owner)
    assert [path.name for path in target.iterdir()] == (["own.xml"] if is_link else [])


def ask(daemon: LibvirtDaemon, cache: Path) -> None:
    connection = libvirt.open(daemon.uri)
    connection.getDomainCapabilities(str(emulator(daemon.root, cache=cache)), "x86_64", "q35", "qemu", 0)
    connection.close()


def known(daemon: LibvirtDaemon) -> dict[str, int]:
    """Return the files with QEMU's abilities, and when each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (daemon.root / "cache/libvirt/qemu/cache/capabilities").glob("*.xml")}


def test_it_never_runs_as_root(daemon: LibvirtDaemon) -> None:
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert "0" not in status["Uid"].split()
    if os.geteuid() == 0:
        assert account_options()[0] == "setpriv"
        assert {status[name] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}


def test_two_daemons_do_not_meet(daemon: LibvirtDaemon, cache: Path) -> None:
    with running(cache) as other:
        first, second = libvirt.open(daemon.uri), libvirt.open(other.uri)
        first.defineXML(domain_xml(SPECS["volume"], emulator=str(emulator(daemon.root, cache=cache))))
        assert [domain.name() for domain in first.listAllDomains()] == ["machine"]
        assert second.listAllDomains() == []
        first.close()
        second.close()
