"""A bootable test disk, made from Debian packages alone."""

from __future__ import annotations

from tests.guest.build import build_guest

__all__ = ["build_guest"]
