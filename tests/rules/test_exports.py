"""What a package offers is listed, exists, and changes only on purpose."""

from __future__ import annotations

import importlib

import pytest

EXPORTS = {
    "imagekit.stream": {
        "STREAMED_FORMATS",
        "ByteStream",
        "DecodeLimits",
        "DecodedDisk",
        "DiskWriter",
        "FileReader",
        "FileWriter",
        "LateTablesError",
        "RandomReader",
        "decode_random",
        "decode_stream",
    },
}


@pytest.mark.parametrize("package", EXPORTS)
def test_exports_are_pinned(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) == EXPORTS[package]
    assert all(hasattr(module, name) for name in module.__all__)
