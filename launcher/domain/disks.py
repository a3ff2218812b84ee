"""Disks, and the controllers they need."""

from __future__ import annotations

from collections import Counter
from xml.etree.ElementTree import Element

from launcher.domain.elements import element
from launcher.spec import Bus, Disk

_PREFIXES = {Bus.VIRTIO: "vd", Bus.SCSI: "sd", Bus.SATA: "sd"}


def disk_elements(disks: tuple[Disk, ...]) -> list[Element]:
    """Return the disks in order, each with a target name of its own, and a virtio-scsi controller when one needs it."""
    taken: Counter[str] = Counter()
    elements = []
    for number, disk in enumerate(disks):
        prefix = _PREFIXES[disk.bus]
        elements.append(_disk(disk, number=number, target=prefix + chr(ord("a") + taken[prefix])))
        taken[prefix] += 1
    if any(disk.bus is Bus.SCSI for disk in disks):
        elements.append(element("controller", type="scsi", index="0", model="virtio-scsi"))
    return elements


def disk_group(number: int) -> str:
    """Return the name under which the descriptor of disk ``number`` is handed to libvirt."""
    return f"disk{number}"


def base_group(number: int) -> str:
    """Return the name under which the descriptor of the base of disk ``number`` is handed to libvirt."""
    return f"base{number}"


def _disk(disk: Disk, *, number: int, target: str) -> Element:
    group = disk_group(number)
    source = element("source", dev=disk.path) if disk.is_block_device else _file(disk.path, group)
    children = [_driver(disk), source, _backing_store(disk, number), element("target", dev=target, bus=disk.bus.value)]
    if disk.is_readonly or disk.is_cdrom:
        children.append(element("readonly"))
    if disk.serial:
        children.append(element("serial", text=disk.serial))
    if disk.boot_order:
        children.append(element("boot", order=str(disk.boot_order)))
    device = "cdrom" if disk.is_cdrom else "disk"
    return element("disk", *children, type="block" if disk.is_block_device else "file", device=device)


def _file(path: str, group: str) -> Element:
    return element("source", file=path, fdgroup=group)


def _backing_store(disk: Disk, number: int) -> Element:
    """Return what the disk rests on; the empty element says "nothing", so that libvirt does not look for it in the disk."""
    if disk.base is None:
        return element("backingStore")
    end = element("backingStore")
    form = element("format", type=disk.base.format.driver)
    return element("backingStore", form, _file(disk.base.path, base_group(number)), end, type="file")


def _driver(disk: Disk) -> Element:
    """Return how QEMU opens the disk: never with a guessed format, and giving back what the guest discards."""
    driver = element("driver", name="qemu", type=disk.format.driver)
    if disk.is_ephemeral:
        driver.set("cache", "unsafe")
    if not disk.is_readonly and not disk.is_cdrom:
        driver.set("discard", "unmap")
    return driver
