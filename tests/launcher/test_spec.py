"""The machine's document: it survives the round trip, and what does not make sense is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import UsageError
from imagekit.base.units import MIB
from imagekit.image import DiskFormat
from launcher.spec import (
    Accelerator,
    Base,
    Bus,
    Disk,
    Firmware,
    MachineSpec,
    Network,
    NetworkKind,
    PortForward,
    format_spec,
    parse_spec,
)

PORTS = st.integers(1, 65535)
FORWARDS = st.builds(PortForward, host_port=PORTS, guest_port=PORTS, protocol=st.sampled_from(["tcp", "udp"]))
NETWORKS = st.one_of(
    st.just(Network()), st.builds(Network, kind=st.just(NetworkKind.USER), forwards=st.lists(FORWARDS, max_size=3).map(tuple))
)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True)


@st.composite
def disks(draw: st.DrawFn) -> tuple[Disk, ...]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    return tuple(
        Disk(path=f"/{name}", format=DiskFormat.QCOW2, bus=draw(st.sampled_from(Bus)), boot_order=number * draw(st.integers(0, 1)))
        for number, name in enumerate(names, start=1)
    )


@settings(max_examples=40, deadline=None)
@given(
    spec=st.builds(
        MachineSpec,
        name=NAMES.filter(lambda name: not name.endswith("-")),
        disks=disks(),
        memory_bytes=st.integers(16, 4096).map(lambda size: size * MIB),
        cpus=st.integers(1, 64),
        accelerator=st.sampled_from(Accelerator),
        firmware=st.sampled_from(Firmware),
        network=NETWORKS,
    )
)
def test_document_survives_the_round_trip(spec: MachineSpec) -> None:
    assert parse_spec(format_spec(spec)) == spec


def document(**changes: Any) -> bytes:
    return json.dumps({"name": "vm", "disks": [{"path": "/a", "format": "raw"}], **changes}).encode()


REFUSED = {
    "an unknown field": (document(colour="red"), "unknown field `colour`"),
    "an unknown field deep inside": (document(disks=[{"path": "/a", "format": "raw", "x": 1}]), "disks[0]"),
    "a relative path": (document(disks=[{"path": "a", "format": "raw"}]), "absolute path"),
    "a control character in a path": (document(disks=[{"path": "/a\nb", "format": "raw"}]), "printable"),
    "a path that is not UTF-8": (document(disks=[{"path": "/a\udcff", "format": "raw"}]), "not the document"),
    "an unknown format": (document(disks=[{"path": "/a", "format": "auto"}]), "'auto'"),
    "a format for import only": (document(disks=[{"path": "/a", "format": "vmdk"}]), "cannot use the format vmdk"),
    "no disk": (document(disks=[]), "0 disks"),
    "too many disks": (document(disks=[{"path": f"/{n}", "format": "raw"} for n in range(25)]), "25 disks"),
    "one disk twice": (document(disks=[{"path": "/a", "format": "raw"}] * 2), "same path"),
    "one boot order twice": (document(disks=[{"path": f"/{n}", "format": "raw", "bootOrder": 1} for n in "ab"]), "same boot order"),
    "a raw overlay": (document(disks=[{"path": "/a", "format": "raw", "base": {"path": "/b", "format": "raw"}}]), "only a qcow2"),
    "a CD-ROM on virtio": (document(disks=[{"path": "/a", "format": "iso", "isCdrom": True}]), "CD-ROM"),
    "an upper-case name": (document(name="VM"), "'VM'"),
    "a name with a slash": (document(name="a/b"), "'a/b'"),
    "too little memory": (document(memoryBytes=MIB), "1.0 MiB of memory"),
    "memory as text": (document(memoryBytes="1G"), "memoryBytes"),
    "odd memory": (document(memoryBytes=64 * MIB + 1), "whole KiB"),
    "no processor": (document(cpus=0), "0 processors"),
    "a port beyond the last": (
        document(network={"kind": "user", "forwards": [{"hostPort": 70000, "guestPort": 1}]}),
        "port 70000",
    ),
    "a forward without a network": (document(network={"forwards": [{"hostPort": 1, "guestPort": 1}]}), "only be forwarded"),
    "an option for QEMU in an address": (
        document(network={"kind": "user", "forwards": [{"hostPort": 1, "guestPort": 1, "hostAddress": "1.1.1.1,x=y"}]}),
        "1.1.1.1,x=y",
    ),
    "a multicast MAC": (document(network={"kind": "user", "mac": "01:00:5e:00:00:01"}), "MAC"),
    "a long socket path": (document(consoleSocket="/" + "s" * 120), "too long"),
    "no object": (b"[]", "not the document"),
    "no JSON": (b"{", "not the document"),
    "too deep": (b"[" * 100_000, "not the document"),
    "too large": (b" " * (MIB + 1), "larger than"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_nonsense_is_refused_by_name(name: str) -> None:
    content, words = REFUSED[name]
    with pytest.raises(UsageError) as caught:
        parse_spec(content)
    assert words in caught.value.message


def test_mac_is_stable_and_local() -> None:
    spec = MachineSpec(name="vm", disks=(Disk(path="/a", format=DiskFormat.RAW),))
    assert spec.mac == MachineSpec(name="vm", disks=spec.disks).mac
    assert spec.mac.startswith("52:54:00:")
    assert spec.mac != MachineSpec(name="vn", disks=spec.disks).mac


def test_path_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ValueError, match="UTF-8"):
        Disk(path="/a\udcff", format=DiskFormat.RAW)


def test_base_is_checked() -> None:
    with pytest.raises(ValueError, match="absolute"):
        Base(path="b", format=DiskFormat.RAW)
