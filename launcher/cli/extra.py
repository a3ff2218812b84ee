"""What an installation without the extra ``launcher`` lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from imagekit.base.errors import ToolError

_MODULES = frozenset({"libvirt", "msgspec"})


@contextlib.contextmanager
def explained_extra() -> Iterator[None]:
    """Turn the failed import of one of the extra's modules into words.

    Raises:
        ToolError: The extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in _MODULES:
            raise
        hint = "install the project with its extra: pip install '.[launcher]'"
        raise ToolError(f"the Python module {error.name!r} is not installed", reason="ToolMissing", hint=hint) from None
