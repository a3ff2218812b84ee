"""The cluster's registry: on the control machine, plain HTTP, under one name everywhere."""

from __future__ import annotations

from tests.cluster.binaries import Binaries
from tests.cluster.machine import Machine


def command(control: Machine, binaries: Binaries) -> list[str]:
    """Write the registry's configuration, and return its command line."""
    directory = control.directory / "registry"
    directory.mkdir()
    configuration = directory / "config.yml"
    configuration.write_text(
        f"version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {directory}/data}}\n"
        f"  delete: {{enabled: true}}\nhttp:\n  addr: {control.names.registry}\n"
    )
    return [binaries["registry"], "serve", str(configuration)]
