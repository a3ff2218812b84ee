"""What every machine has alike: how its ends are taken, entropy, and a device that tells of a kernel's panic."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from launcher.domain.elements import element


def lifecycle_elements() -> list[Element]:
    """Return what happens when the guest powers off, reboots or panics."""
    return [
        element("on_poweroff", text="destroy"),
        element("on_reboot", text="restart"),
        element("on_crash", text="destroy"),
    ]


def fixed_devices() -> list[Element]:
    """Return the devices that no field of the specification asks for."""
    return [
        element("controller", type="usb", model="none"),  # nothing is attached to it, and guests spend seconds on it
        element("memballoon", model="none"),
        element("rng", element("backend", text="/dev/urandom", model="random"), model="virtio"),
        element("panic", model="isa"),
    ]
