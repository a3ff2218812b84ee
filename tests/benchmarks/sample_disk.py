"""A disk with a real file system of real files: what an image of an operating system looks like to a compressor."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_TREES = ("/usr/bin", "/usr/lib", "/usr/share")


def build_sample_disk(target: Path, *, content_bytes: int, virtual_bytes: int) -> Path:
    """Write a plain qcow2 of a disk of ``virtual_bytes`` whose ext4 holds about ``content_bytes`` of this machine's files."""
    content, raw = target.with_suffix(".content"), target.with_suffix(".raw")
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir(parents=True)
    try:
        _copy_files(content, content_bytes)
        with raw.open("wb") as file:
            file.truncate(virtual_bytes)
        _run("mke2fs", "-q", "-F", "-t", "ext4", "-d", str(content), str(raw))
        _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(target))
    finally:
        shutil.rmtree(content, ignore_errors=True)
        raw.unlink(missing_ok=True)
    return target


def _copy_files(content: Path, content_bytes: int) -> None:
    copied_bytes = 0
    for number, path in enumerate(_files()):
        size_bytes = path.stat().st_size
        folder = content / f"{number // 1000:04d}"
        folder.mkdir(exist_ok=True)
        shutil.copyfile(path, folder / f"{number:06d}")
        copied_bytes += size_bytes
        if copied_bytes >= content_bytes:
            return


def _files() -> Iterator[Path]:
    for tree in _TREES:
        for folder, folders, names in os.walk(tree):
            folders.sort()
            for name in sorted(names):
                path = Path(folder) / name
                if path.is_file() and not path.is_symlink() and path.stat().st_size > 0:
                    yield path


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=600, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
