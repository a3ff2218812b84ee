"""Images made by qemu-img itself, as a second opinion; tests that use them carry the mark ``process``."""

from __future__ import annotations

import random
from pathlib import Path

from imagekit.base.process import ProcessLimits, run
from imagekit.base.units import KIB, MIB
from tests.support.prerequisites import require_program

LIMITS = ProcessLimits(timeout_seconds=60)
ANY_CODE = frozenset(range(256))


def qemu_img(*arguments: str | Path, is_failure_expected: bool = False) -> bytes:
    """Run qemu-img and return what it printed."""
    require_program("qemu-img")
    codes = ANY_CODE if is_failure_expected else frozenset({0})
    return run(["qemu-img", *map(str, arguments)], purpose="make a test image", limits=LIMITS, accepted_exit_codes=codes).stdout


def qemu_io(path: Path, image_format: str, *commands: str) -> None:
    """Run qemu-io commands like ``write -P 7 1M 64k`` on an image."""
    require_program("qemu-io")
    options = [part for command in commands for part in ("-c", command)]
    run(["qemu-io", "-f", image_format, *options, str(path)], purpose="write to a test image", limits=LIMITS)


def sample_raw(path: Path, *, size_bytes: int = 4 * MIB, seed: int = 1) -> Path:
    """Write a raw disk with data that compresses, data that does not, and holes."""
    source = random.Random(seed)
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for place in (64 * KIB, 300 * KIB, size_bytes // 2, size_bytes - 64 * KIB):
            file.seek(place)
            file.write(source.randbytes(40 * KIB) + b"text " * 2000)
    return path


def image_of(raw: Path, path: Path, image_format: str, *options: str) -> Path:
    """Write ``raw`` as an image of another format, through qemu-img."""
    qemu_img("convert", "-f", "raw", "-O", image_format, *options, raw, path)
    return path


def are_same(first: Path, first_format: str, second: Path, second_format: str) -> bool:
    """Return qemu-img's own verdict on whether two disks are equal."""
    printed = qemu_img("compare", "-f", first_format, "-F", second_format, first, second, is_failure_expected=True)
    return b"Images are identical" in printed
