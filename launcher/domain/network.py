"""The network card.

The user network's port forwards have no place in the domain's XML with the built-in backend, so the card is given to
QEMU directly. It sits in a fixed slot of the root bus, beyond those that libvirt fills from below.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from launcher.domain.elements import QEMU_NAMESPACE, element
from launcher.spec import MachineSpec, NetworkKind, PortForward

_SLOT = "0x10"


def network_elements(spec: MachineSpec) -> list[Element]:
    """Return the card and what it is connected to; nothing for a machine without a network."""
    if spec.network.kind is NetworkKind.NONE:
        return []
    backend = ",".join(["user", "id=net0", *(_forward(forward) for forward in spec.network.forwards)])
    card = f"virtio-net-pci,netdev=net0,mac={spec.mac},bus=pcie.0,addr={_SLOT},romfile="
    arguments = ["-netdev", backend, "-device", card]
    tag = f"{{{QEMU_NAMESPACE}}}"
    return [element(f"{tag}commandline", *(element(f"{tag}arg", value=argument) for argument in arguments))]


def _forward(forward: PortForward) -> str:
    return f"hostfwd={forward.protocol}:{forward.host_address}:{forward.host_port}-:{forward.guest_port}"
