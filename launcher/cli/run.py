"""``virt-launcher run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagekit.base.command import progress_option
from imagekit.base.environment import read_environment
from imagekit.base.progress import Progress
from launcher.cli.extra import explained_extra
from registrydisk.cli.options import access_options

if TYPE_CHECKING:
    from registrydisk.access import RegistryAccess

_ACCELERATORS = click.Choice(["auto", "kvm", "tcg"])
_FORMATS = click.Choice(["raw", "qcow2", "iso"])
_SECONDS = click.FloatRange(min=0.0)
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_EPILOG = """\b
Exit codes:
  0 the guest switched itself off, by itself or when asked
  1 the guest's kernel panicked, QEMU died, or the guest ignored the request to stop (--grace)
  2 wrong usage            3 no such volume or image     4 access refused
  5 verification failed    6 network                     7 no space
  8 unsafe or unsupported image                        130 stopped twice: the power was taken"""


@click.command("run", epilog=_EPILOG)
@click.argument("source", metavar="VOLUME|IMAGE")
@click.option("--memory", default="512M", show_default=True, help="Memory of the guest.")
@click.option("--cpus", type=click.IntRange(min=1), default=1, show_default=True, help="Processors of the guest.")
@click.option("--console", default="tty", show_default=True, metavar="tty|none|FILE", help="Where the serial console goes.")
@click.option("--network", type=click.Choice(["user", "none"]), default="user", show_default=True, help="The guest's network.")
@click.option("--forward", "forwards", multiple=True, metavar="[ADDRESS:]PORT:GUEST[/udp]", help="Lead a port here to the guest's.")
@click.option("--accelerator", type=_ACCELERATORS, default="auto", show_default=True, help="auto is KVM where it runs a guest.")
@click.option("--firmware", type=click.Choice(["bios", "efi"]), default="bios", show_default=True, help="What starts the loader.")
@click.option("--bus", type=click.Choice(["virtio", "scsi", "sata"]), default="virtio", show_default=True, help="The disk's bus.")
@click.option("--format", "disk_format", type=_FORMATS, help="What a file or device is read as. [default: inspected; device: raw]")
@click.option("--platform", metavar="OS/ARCH", help="Which image of an index. [default: this machine's]")
@click.option("--persist", type=_DIRECTORY, metavar="DIR", help="Keep in DIR what the guest writes over an image.")
@click.option("--seed", type=_FILE, metavar="ISO", help="A second, read-only drive: cloud-init's seed.")
@click.option("--grace", type=_SECONDS, default=30.0, show_default=True, metavar="SECONDS", help="How long the guest may take.")
@access_options
@progress_option
def run(source: str, access: RegistryAccess, progress: Progress, **options: object) -> int:
    """Boot VOLUME (a directory, file or block device) as it is, or IMAGE (docker://, oci:, …) on an overlay.

    The serial console is on the terminal. Ctrl-C, or Ctrl-] where the guest gets Ctrl-C, presses the guest's power
    button; the second one takes its power.

    \b
    Example:
      virt-launcher run ./volume --memory 1G --forward 8080:80
      virt-launcher run docker://quay.io/me/fedora:42
    """
    # Imported here, so that --help does not pay for libvirt and the codecs.
    with explained_extra():
        from launcher.cli.request import read_request
        from launcher.machine import run_machine

    request = read_request(source, access=access, options=options, environment=read_environment())
    return 130 if run_machine(request, progress=progress).is_forced else 0
