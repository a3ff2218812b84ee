"""The whole domain, put together from its subjects."""

from __future__ import annotations

from launcher.domain.compute import compute_elements
from launcher.domain.console import console_elements
from launcher.domain.disks import disk_elements
from launcher.domain.elements import element, to_text
from launcher.domain.firmware import firmware_elements
from launcher.domain.fixed import fixed_devices, lifecycle_elements
from launcher.domain.network import network_elements
from launcher.spec import Accelerator, MachineSpec


def domain_xml(spec: MachineSpec, *, emulator: str) -> str:
    """Return the domain of ``spec``, whose QEMU is the program ``emulator``; equal arguments give equal text."""
    devices = element(
        "devices",
        element("emulator", text=emulator),
        *disk_elements(spec.disks),
        *console_elements(spec.console_socket),
        *fixed_devices(),
    )
    root = element(
        "domain",
        element("name", text=spec.name),
        *compute_elements(spec),
        *firmware_elements(spec.firmware),
        *lifecycle_elements(),
        devices,
        *network_elements(spec),
        type="kvm" if spec.accelerator is Accelerator.KVM else "qemu",
    )
    return to_text(root)
