"""The machine type, and what starts the boot loader."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from launcher.domain.elements import element
from launcher.spec import Firmware


def firmware_elements(firmware: Firmware) -> list[Element]:
    """Return the boot firmware; libvirt finds the files of EFI itself, from their descriptors."""
    kind = element("type", text="hvm", arch="x86_64", machine="q35")
    boot = element("os", kind, firmware="efi") if firmware is Firmware.EFI else element("os", kind)
    return [boot, element("features", element("acpi"), element("apic"))]
