"""From a MachineSpec to libvirt's domain XML: pure functions, one subject a file (libvirt: formatdomain)."""

from __future__ import annotations

from launcher.domain.domain import domain_xml

__all__ = ["domain_xml"]
