"""The serial console."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from launcher.domain.elements import element


def console_elements(socket_path: str) -> list[Element]:
    """Return the first serial port.

    QEMU connects to a socket that we listen on, so the first byte that the firmware prints is not lost.
    """
    if not socket_path:
        return [element("serial", element("target", port="0"), type="null")]
    source = element("source", mode="connect", path=socket_path)
    return [element("serial", source, element("target", port="0"), type="unix")]
