"""The words of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from imagekit.base.errors import ToolError, UsageError
from launcher.cli.extra import explained_extra
from launcher.cli.request import parse_forward, read_request
from launcher.cli.run import run
from launcher.machine import RunRequest
from launcher.spec import PortForward
from registrydisk.access import RegistryAccess

DEFAULTS = {
    "memory": "512M",
    "cpus": 1,
    "console": "tty",
    "network": "user",
    "forwards": (),
    "accelerator": "auto",
    "firmware": "bios",
    "bus": "virtio",
    "disk_format": None,
    "platform": None,
    "persist": None,
    "seed": None,
    "grace": 30.0,
}


def request(source: str = "volume", **changes: object) -> RunRequest:
    return read_request(source, access=RegistryAccess(), options={**DEFAULTS, **changes}, environment={"IMAGEKIT_CACHE": "/cache"})


def test_defaults() -> None:
    made = request()
    assert (made.memory_bytes, made.cpus, made.grace_seconds, made.cache) == (512 << 20, 1, 30.0, Path("/cache/launcher"))


OTHERS = {
    "memory": "1G",
    "cpus": 2,
    "console": "none",
    "network": "none",
    "forwards": ("80:80",),
    "accelerator": "tcg",
    "firmware": "efi",
    "bus": "scsi",
    "disk_format": "raw",
    "platform": "linux/arm64",
    "persist": Path("/kept"),
    "seed": Path("/seed.iso"),
    "grace": 1.0,
}


@pytest.mark.parametrize("option", DEFAULTS)
def test_every_option_changes_the_request(option: str) -> None:
    source = "oci:layout" if option in ("persist", "platform") else "volume"
    assert request(source, **{option: OTHERS[option]}) != request(source)


@pytest.mark.parametrize(("source", "option"), [("volume", "persist"), ("volume", "platform"), ("oci:layout", "disk_format")])
def test_option_that_would_be_ignored_is_refused(source: str, option: str) -> None:
    with pytest.raises(UsageError, match="volume"):
        request(source, **{option: OTHERS[option]})


def test_empty_name_is_not_this_directory() -> None:
    with pytest.raises(UsageError, match="empty"):
        request("")


@pytest.mark.parametrize("grace", [float("nan"), float("inf")])
def test_grace_has_an_end(grace: float) -> None:
    with pytest.raises(UsageError, match="--grace"):
        request(grace=grace)


@pytest.mark.parametrize("module", ["msgspec", "libvirt"])
def test_missing_extra_is_named_with_a_way_out(module: str) -> None:
    with pytest.raises(ToolError, match=module) as caught, explained_extra():
        raise ModuleNotFoundError(name=module)
    assert ".[launcher]" in caught.value.hint


def test_other_missing_modules_are_errors_of_ours() -> None:
    with pytest.raises(ModuleNotFoundError), explained_extra():
        raise ModuleNotFoundError(name="launcher.other")


def test_every_option_of_the_command_is_read() -> None:
    shared = {"source", "progress", "help", "creds", "authfile", "insecure", "plain_http", "cert_dir", "token_hosts", "token_host"}
    assert {parameter.name for parameter in run.params} - shared == set(DEFAULTS)


@pytest.mark.parametrize(
    ("text", "forward"),
    [
        ("8080:80", PortForward(host_port=8080, guest_port=80)),
        ("0.0.0.0:8080:80", PortForward(host_port=8080, guest_port=80, host_address="0.0.0.0")),
        ("5353:53/udp", PortForward(host_port=5353, guest_port=53, protocol="udp")),
    ],
)
def test_forwards(text: str, forward: PortForward) -> None:
    assert parse_forward(text) == forward


@pytest.mark.parametrize(
    "text", ["", "80", "80:", "0:80", "80:70000", "a:80:80", "1.2.3.4.5:1:1", "80:80/sctp", "80:80,id=x", "-1:2"]
)
def test_forwards_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="not a port forward"):
        parse_forward(text)


def test_forward_needs_a_network() -> None:
    with pytest.raises(UsageError, match="network 'user'"):
        request(forwards=("80:80",), network="none")


@pytest.mark.parametrize("arguments", [["x", "--cpus", "0"], ["x", "--grace", "-1"], ["x", "--bus", "ide"], []])
def test_wrong_words_are_usage_errors(arguments: list[str]) -> None:
    assert CliRunner().invoke(run, arguments).exit_code == 2


def test_help_has_an_example_and_the_exit_codes() -> None:
    shown = CliRunner().invoke(run, ["--help"]).output
    assert "virt-launcher run ./volume" in shown
    assert "130 stopped twice" in shown
