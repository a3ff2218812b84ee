"""``python -m tests.guest TARGET``: write the guest's disk to TARGET."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.guest.build import build_guest


def main(arguments: list[str]) -> int:
    """Build the disk; the one argument is where it goes."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m tests.guest TARGET", file=sys.stderr)
        return 2
    print(build_guest(Path(arguments[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
