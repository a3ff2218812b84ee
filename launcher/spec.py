"""MachineSpec: everything that makes one machine what it is, and its JSON form.

The same document drives ``virt-launcher run`` on a laptop and the launcher in a pod. It is parsed strictly: an unknown
field, a value out of range or two devices of one name are errors that name the place.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from enum import StrEnum

import msgspec

from imagekit.base.errors import UsageError
from imagekit.base.units import KIB, MIB, TIB, format_size
from imagekit.image import DiskFormat

SMALLEST_MEMORY_BYTES = 16 * MIB
LARGEST_MEMORY_BYTES = 16 * TIB
MOST_CPUS = 512
MOST_DISKS = 24
LARGEST_DOCUMENT_BYTES = MIB
GUEST_FORMATS = frozenset({DiskFormat.RAW, DiskFormat.QCOW2, DiskFormat.ISO})
_LONGEST_SOCKET_PATH = 107  # sun_path of unix(7), without its final zero
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_MAC = re.compile(r"[0-9a-f][02468ace](?::[0-9a-f]{2}){5}")
_PRINTABLE_PATH = re.compile(r"/[^\x00-\x1f\x7f\ud800-\udfff]*")  # lone surrogates: bytes that are not UTF-8


def _require(is_so: bool, message: str) -> None:
    if not is_so:
        raise ValueError(message)


def _require_path(path: str, what: str) -> None:
    _require(_PRINTABLE_PATH.fullmatch(path) is not None, f"{what} {path!r} is not an absolute path of printable UTF-8 characters")


class Accelerator(StrEnum):
    """How the guest's instructions run: on the processor, or translated by QEMU."""

    KVM = "kvm"
    TCG = "tcg"


class Firmware(StrEnum):
    """What starts the boot loader."""

    BIOS = "bios"
    EFI = "efi"


class Bus(StrEnum):
    """How a disk is attached."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"


class NetworkKind(StrEnum):
    """What the guest's network card is connected to."""

    NONE = "none"
    USER = "user"


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """A strict, immutable part of the document; ``__post_init__`` raises ValueError, which parsing turns into a UsageError."""


class Base(_Document, frozen=True, kw_only=True):
    """The file that an overlay rests on; it rests on nothing itself and is only read."""

    path: str
    format: DiskFormat

    def __post_init__(self) -> None:
        _require_path(self.path, "the path of an overlay's base")
        _require(self.format in GUEST_FORMATS, f"a machine cannot use the format {self.format.value}")


class Disk(_Document, frozen=True, kw_only=True):
    """A disk of the machine.

    Attributes:
        path: Absolute path of the file or block device.
        format: The format to read it in; QEMU never guesses.
        base: What it is an overlay of; None for a disk that stands alone, whatever its header says.
        is_block_device: Whether ``path`` is a block device.
        is_cdrom: Whether the guest sees a CD-ROM drive.
        is_readonly: Whether the guest may not write.
        is_ephemeral: Whether what the guest writes is thrown away at the end, so that no flush needs to be durable.
        boot_order: Place among the devices to boot from, from 1; 0 leaves it out.
        serial: What the guest reads as the disk's serial number.
    """

    path: str
    format: DiskFormat
    base: Base | None = None
    bus: Bus = Bus.VIRTIO
    is_block_device: bool = False
    is_cdrom: bool = False
    is_readonly: bool = False
    is_ephemeral: bool = False
    boot_order: int = 0
    serial: str = ""

    def __post_init__(self) -> None:
        _require_path(self.path, "a disk's path")
        _require(self.format in GUEST_FORMATS, f"a machine cannot use the format {self.format.value}")
        _require(self.base is None or self.format is DiskFormat.QCOW2, "only a qcow2 disk can be an overlay")
        _require(not (self.is_cdrom and self.bus is Bus.VIRTIO), "a CD-ROM drive cannot be on the virtio bus")
        _require(0 <= self.boot_order <= MOST_DISKS, f"boot order {self.boot_order} is not between 0 and {MOST_DISKS}")
        _require(re.fullmatch(r"[A-Za-z0-9_.-]{0,20}", self.serial) is not None, f"{self.serial!r} is not a serial number")


class PortForward(_Document, frozen=True, kw_only=True):
    """A port of this machine that leads to one of the guest's."""

    host_port: int
    guest_port: int
    host_address: str = "127.0.0.1"
    protocol: str = "tcp"

    def __post_init__(self) -> None:
        for port in (self.host_port, self.guest_port):
            _require(1 <= port <= 65535, f"port {port} is not between 1 and 65535")
        _require(self.protocol in ("tcp", "udp"), f"protocol {self.protocol!r} is neither tcp nor udp")
        ipaddress.IPv4Address(self.host_address)  # QEMU's user network forwards IPv4; raises ValueError


class Network(_Document, frozen=True, kw_only=True):
    """The machine's one network card; an empty ``mac`` is derived from the machine's name."""

    kind: NetworkKind = NetworkKind.NONE
    mac: str = ""
    forwards: tuple[PortForward, ...] = ()

    def __post_init__(self) -> None:
        _require(not self.mac or _MAC.fullmatch(self.mac) is not None, f"{self.mac!r} is not a unicast MAC address in lower case")
        _require(not self.forwards or self.kind is NetworkKind.USER, "ports can only be forwarded on the network 'user'")


class MachineSpec(_Document, frozen=True, kw_only=True):
    """One machine.

    Attributes:
        name: Name of the domain.
        memory_bytes: Memory of the guest; whole KiB.
        console_socket: A Unix socket that the first serial port connects to when the machine starts; empty for no console.
    """

    name: str
    disks: tuple[Disk, ...]
    memory_bytes: int = 512 * MIB
    cpus: int = 1
    accelerator: Accelerator = Accelerator.TCG
    firmware: Firmware = Firmware.BIOS
    network: Network = Network()
    console_socket: str = ""

    def __post_init__(self) -> None:
        _require(
            _NAME.fullmatch(self.name) is not None, f"{self.name!r} is not a name of lower-case letters, digits, dots and dashes"
        )
        least, most = SMALLEST_MEMORY_BYTES, LARGEST_MEMORY_BYTES
        memory = self.memory_bytes
        _require(
            least <= memory <= most, f"{format_size(memory)} of memory is not between {format_size(least)} and {format_size(most)}"
        )
        _require(memory % KIB == 0, f"{memory} bytes of memory are not whole KiB")
        _require(1 <= self.cpus <= MOST_CPUS, f"{self.cpus} processors are not between 1 and {MOST_CPUS}")
        _require(0 < len(self.disks) <= MOST_DISKS, f"{len(self.disks)} disks are not between 1 and {MOST_DISKS}")
        orders = [disk.boot_order for disk in self.disks if disk.boot_order]
        _require(len(orders) == len(set(orders)), "two disks have the same boot order")
        paths = [disk.path for disk in self.disks]
        _require(len(paths) == len(set(paths)), "two disks have the same path")
        if self.console_socket:
            _require_path(self.console_socket, "the console's socket")
            _require(
                len(self.console_socket.encode()) <= _LONGEST_SOCKET_PATH,
                "the path of the console's socket is too long for a socket",
            )

    @property
    def mac(self) -> str:
        """The network card's address: the one asked for, else one that the name always gives (locally administered)."""
        return self.network.mac or "52:54:00:" + hashlib.sha256(self.name.encode()).digest()[:3].hex(":")


def parse_spec(content: bytes) -> MachineSpec:
    """Return the machine that the JSON document ``content`` describes.

    Raises:
        UsageError: It is too large, no JSON, or not a valid machine; the message names the field.
    """
    if len(content) > LARGEST_DOCUMENT_BYTES:
        raise UsageError(f"the machine's document is larger than {format_size(LARGEST_DOCUMENT_BYTES)}")
    try:
        return msgspec.json.decode(content, type=MachineSpec)
    except (msgspec.DecodeError, RecursionError) as error:  # a ValidationError is a DecodeError
        raise UsageError(f"this is not the document of a machine: {error}") from error


def format_spec(spec: MachineSpec) -> bytes:
    """Return the JSON document of ``spec``; ``parse_spec`` reads it back."""
    return msgspec.json.format(msgspec.json.encode(spec), indent=2)
