"""Memory, processors and the clock."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from launcher.domain.elements import element
from launcher.spec import Accelerator, MachineSpec


def compute_elements(spec: MachineSpec) -> list[Element]:
    """Return what the machine computes with."""
    return [
        element("memory", text=str(spec.memory_bytes), unit="b"),
        element("vcpu", text=str(spec.cpus)),
        _processor(spec),
        element("clock", offset="utc"),
    ]


def _processor(spec: MachineSpec) -> Element:
    # TCG's default model lacks what distributions built for x86-64-v2 need from their first instruction on.
    mode = "host-passthrough" if spec.accelerator is Accelerator.KVM else "maximum"
    topology = element("topology", sockets="1", dies="1", cores=str(spec.cpus), threads="1")
    return element("cpu", topology, mode=mode)
