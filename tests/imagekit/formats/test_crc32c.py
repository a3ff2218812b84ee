"""CRC-32C."""

from __future__ import annotations

import pytest

from imagekit.formats.crc32c import crc32c


@pytest.mark.parametrize(
    ("content", "checksum"),  # RFC 3720, appendix B.4
    [(b"", 0), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E), (b"123456789", 0xE3069283)],
)
def test_published_values(content: bytes, checksum: int) -> None:
    assert crc32c(content) == checksum
