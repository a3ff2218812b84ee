"""The process environment, read here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType


def read_environment() -> Mapping[str, str]:
    """Return the environment as it is now, read-only; entry points hand on what callees need."""
    return MappingProxyType(dict(os.environ))
