"""Text from elsewhere, made fit for a terminal."""

from __future__ import annotations


def printable(text: str, *, kept: str = "") -> str:
    r"""Return ``text`` with everything escaped that could move a terminal's cursor or cannot be encoded.

    Images, registries and servers choose some of the words in our messages.

    Args:
        kept: Control characters to keep, as ``"\n"``.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in kept else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
