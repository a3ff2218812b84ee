"""Where the guest's parts come from: Debian's (or Ubuntu's) packages, installed or only unpacked."""

from __future__ import annotations

import lzma
import os
import re
from dataclasses import dataclass
from pathlib import Path

from imagekit.base.process import ProcessLimits, find_program, run
from tests.support.services import unpacked_package

_KERNELS = ("linux-image-cloud-amd64", "linux-image-virtual")  # Debian's name, Ubuntu's name
_LIMITS = ProcessLimits(timeout_seconds=300)
_MODULES = re.compile(r"linux-(?:image|modules)-(?:unsigned-)?\d")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel: its image and the trees that hold its modules."""

    image: Path
    trees: tuple[Path, ...]

    def modules(self, wanted: tuple[str, ...]) -> list[tuple[str, bytes]]:
        """Return the modules ``wanted`` and what they depend on, in the order of loading.

        Modules that the kernel has built in, or does not have at all, are left out.
        """
        found = {
            _module_name(path): path
            for tree in self.trees
            for path in sorted(tree.rglob("*.ko*"))
            if path.is_file() and not path.is_symlink()
        }
        ordered: dict[str, bytes] = {}

        def add(name: str) -> None:
            if name in ordered or name not in found:
                return
            content = _module_content(found[name])
            match = _DEPENDS.search(content)
            for dependency in match[1].decode().split(",") if match else ():
                add(dependency.replace("-", "_"))
            ordered[name] = content

        for name in wanted:
            add(name)
        return list(ordered.items())


def find_kernel() -> Kernel:
    """Return the distribution's kernel for virtual machines, downloaded once and unpacked, not installed."""
    for meta in _KERNELS:
        versioned = [name for name in _dependencies(meta) if _MODULES.match(name)]
        names = [*versioned, *(more for name in versioned for more in _dependencies(name) if _MODULES.match(more))]
        if names:
            break
    else:
        raise AssertionError(f"no Debian package of {' or '.join(_KERNELS)}: run `apt-get update` as root first")
    trees = tuple(unpacked_package(name) for name in dict.fromkeys(names))
    (image,) = (path for tree in trees for path in (tree / "boot").glob("vmlinuz-*"))
    return Kernel(image=image, trees=trees)


def find_file(package: str, path: str) -> Path:
    """Return the file ``path`` (``usr/bin/syslinux``) of ``package``: the installed one, else the unpacked one."""
    installed = Path("/") / path
    return installed if installed.exists() else unpacked_package(package) / path


def tool_path() -> str:
    """Return a search path that has every program the build needs."""
    needed = {"mcopy": "mtools", "syslinux": "syslinux", "mkfs.fat": "dosfstools", "mke2fs": "e2fsprogs", "debugfs": "e2fsprogs"}
    roots = {unpacked_package(package) for program, package in needed.items() if find_program(program) is None}
    found = [f"{root}/{directory}" for root in sorted(roots) for directory in ("usr/bin", "usr/sbin", "bin", "sbin")]
    return ":".join([*found, "/usr/sbin", "/usr/bin", "/sbin", "/bin"])


def find_tool(name: str, *, path: str) -> str:
    """Return the program ``name`` in the search path ``path``."""
    return next(str(Path(directory) / name) for directory in path.split(":") if (Path(directory) / name).exists())


def _dependencies(name: str) -> list[str]:
    """Return the names in the package's Depends; none when the package is not known."""
    command = ["apt-cache", "show", "--no-all-versions", name]
    shown = run(command, purpose=f"look up the package {name}", limits=_LIMITS, accepted_exit_codes=frozenset({0, 100}))
    if not shown.stdout and name == _KERNELS[0] and os.geteuid() == 0 and not _has_lists():
        run(["apt-get", "-q", "update"], purpose="fetch the lists of packages", limits=_LIMITS)
        return _dependencies(name)
    line = re.search(r"^Depends: (.*)$", shown.stdout.decode(), re.MULTILINE)
    return [entry.split()[0].split(":")[0] for entry in line[1].split(",")] if line else []


def _has_lists() -> bool:
    return any(Path("/var/lib/apt/lists").glob("*_Packages*"))


def _module_name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _module_content(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(content)
    if path.suffix == ".zst":
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(content)
    return content
