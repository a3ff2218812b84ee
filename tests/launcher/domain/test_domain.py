"""The domain's XML: golden files, and that every field of the specification arrives in it.

IMAGEKIT_REGENERATE=1 writes the golden files anew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from imagekit.base.units import GIB, MIB
from imagekit.image import DiskFormat
from launcher.domain import domain_xml
from launcher.spec import Accelerator, Base, Bus, Disk, Firmware, MachineSpec, Network, NetworkKind, PortForward

GOLDEN = Path(__file__).parents[2] / "golden" / "domain"
EMULATOR = "/usr/bin/qemu-system-x86_64"
RAW = Disk(path="/volumes/a/disk.img", format=DiskFormat.RAW, boot_order=1)
OVERLAY = Disk(
    path="/run/overlay.qcow2",
    format=DiskFormat.QCOW2,
    base=Base(path="/cache/disk", format=DiskFormat.QCOW2),
    is_ephemeral=True,
    boot_order=1,
)
SEED = Disk(path="/run/seed.iso", format=DiskFormat.ISO, bus=Bus.SATA, is_cdrom=True)
FORWARDS = (
    PortForward(host_port=8080, guest_port=80),
    PortForward(host_port=5353, guest_port=53, host_address="0.0.0.0", protocol="udp"),
)
SPECS = {
    "volume": MachineSpec(name="machine", disks=(RAW,), memory_bytes=128 * MIB),
    "overlay-with-seed-and-ports": MachineSpec(
        name="machine",
        disks=(OVERLAY, SEED),
        network=Network(kind=NetworkKind.USER, forwards=FORWARDS),
        console_socket="/run/console",
    ),
    "kvm-efi-many-disks": MachineSpec(
        name="machine",
        disks=(
            Disk(path="/dev/vg/one", format=DiskFormat.RAW, is_block_device=True, serial="one", boot_order=2),
            Disk(path="/b & <c>.qcow2", format=DiskFormat.QCOW2, bus=Bus.SCSI, is_readonly=True, boot_order=1),
            Disk(path="/d.img", format=DiskFormat.RAW, bus=Bus.SATA),
        ),
        memory_bytes=2 * GIB,
        cpus=4,
        accelerator=Accelerator.KVM,
        firmware=Firmware.EFI,
        network=Network(kind=NetworkKind.USER, mac="52:54:00:00:00:01"),
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_golden(name: str) -> None:
    path = GOLDEN / f"{name}.xml"
    text = domain_xml(SPECS[name], emulator=EMULATOR)
    if os.environ.get("IMAGEKIT_REGENERATE"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


OTHER_VALUES: dict[type, dict[str, Any]] = {
    MachineSpec: {
        "name": "other",
        "disks": (OVERLAY,),
        "memory_bytes": 256 * MIB,
        "cpus": 2,
        "accelerator": Accelerator.KVM,
        "firmware": Firmware.EFI,
        "network": Network(kind=NetworkKind.USER),
        "console_socket": "/run/console",
    },
    Disk: {
        "path": "/other",
        "format": DiskFormat.QCOW2,
        "base": Base(path="/base", format=DiskFormat.RAW),
        "bus": Bus.SCSI,
        "is_block_device": True,
        "is_cdrom": True,
        "is_readonly": True,
        "is_ephemeral": True,
        "boot_order": 3,
        "serial": "serial",
    },
    Base: {"path": "/other", "format": DiskFormat.QCOW2},
    Network: {"kind": NetworkKind.NONE, "mac": "52:54:00:11:22:33", "forwards": FORWARDS[1:]},
    PortForward: {"host_port": 1, "guest_port": 2, "host_address": "0.0.0.0", "protocol": "udp"},
}


def machine_with(part: Any) -> MachineSpec:
    """Return a machine that contains ``part``."""
    match part:
        case MachineSpec():
            return part
        case Disk():
            return MachineSpec(name="machine", disks=(part,))
        case Base():
            return MachineSpec(name="machine", disks=(msgspec.structs.replace(OVERLAY, base=part),))
        case Network():
            return MachineSpec(name="machine", disks=(RAW,), network=part)
        case _:
            return MachineSpec(name="machine", disks=(RAW,), network=Network(kind=NetworkKind.USER, forwards=(part,)))


PLAIN: dict[type, Any] = {
    MachineSpec: SPECS["volume"],
    Disk: RAW,
    Base: Base(path="/base", format=DiskFormat.RAW),
    Network: Network(kind=NetworkKind.USER),
    PortForward: FORWARDS[0],
}
FIELDS = [(kind, field.name) for kind in OTHER_VALUES for field in msgspec.structs.fields(kind)]


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=[f"{kind.__name__}.{field}" for kind, field in FIELDS])
def test_every_field_changes_the_domain(kind: type, field: str) -> None:
    plain = PLAIN[kind]
    if kind is Disk and field == "base":
        plain = msgspec.structs.replace(plain, format=DiskFormat.QCOW2)
    if kind is Disk and field == "is_cdrom":
        plain = msgspec.structs.replace(plain, bus=Bus.SATA)
    changed = msgspec.structs.replace(plain, **{field: OTHER_VALUES[kind][field]})
    if kind is Network and field == "kind":
        plain, changed = changed, plain
    assert domain_xml(machine_with(plain), emulator=EMULATOR) != domain_xml(machine_with(changed), emulator=EMULATOR)


def test_format_is_always_given_and_the_chain_is_closed() -> None:
    """A header that a guest wrote must never be looked at: neither for the format nor for a backing file."""
    for spec in SPECS.values():
        text = domain_xml(spec, emulator=EMULATOR)
        assert text.count("<driver name=") == len(spec.disks) == text.count('<driver name="qemu" type=')
        assert text.count("<backingStore />") == len(spec.disks)
