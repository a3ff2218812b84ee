"""Short words for building XML."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"


def element(tag: str, /, *children: Element, text: str | None = None, **attributes: str) -> Element:
    """Return an element; an attribute's name may end in an underscore where Python reserves the word."""
    made = Element(tag, {name.rstrip("_"): value for name, value in attributes.items()})
    made.text = text
    made.extend(children)
    return made


def to_text(root: Element) -> str:
    """Return the document, indented, with a final newline."""
    ElementTree.register_namespace("qemu", QEMU_NAMESPACE)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"
