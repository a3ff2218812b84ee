"""The names of services, for pods: CoreDNS on the control machine. Names outside the cluster are refused."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.binaries import Binaries
from tests.cluster.machine import Machine

DOMAIN = "cluster.local"
_COREFILE = """\
{domain} {{
    bind {address}
    errors
    kubernetes {{
        kubeconfig {kubeconfig}
    }}
}}
"""


def command(control: Machine, binaries: Binaries, kubeconfig: Path) -> list[str]:
    """Write the name server's configuration, and return its command line."""
    configuration = control.directory / "Corefile"
    configuration.write_text(_COREFILE.format(domain=DOMAIN, address=control.names.control_address, kubeconfig=kubeconfig))
    return [binaries["coredns"], "-conf", str(configuration)]
