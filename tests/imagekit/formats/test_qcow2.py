"""The header's rules, one poked field at a time."""

from __future__ import annotations

import struct

import pytest

from imagekit.base.errors import ImageError
from imagekit.formats.qcow2 import MAX_L1_BYTES, header_findings, parse_header
from tests.support import images

GOOD = images.qcow2_image()
GOOD_V2 = images.qcow2_image(version=2)


def rules_of(image: bytes, *, size_bytes: int | None = None) -> set[str]:
    findings = header_findings(parse_header(image), file_size_bytes=len(image) if size_bytes is None else size_bytes)
    return {finding.rule for finding in findings}


@pytest.mark.parametrize(
    "image",
    [
        GOOD,
        GOOD_V2,
        images.qcow2_image(cluster_bits=9),
        images.qcow2_image(compression="zlib"),
        images.qcow2_image(compression="zstd"),
        images.qcow2_image(has_extended_l2=True),
        images.poke_qcow2(GOOD, incompatible_features=1),
        images.poke_qcow2(GOOD, compatible_features=1 << 40, autoclear_features=1 << 50),
        images.poke_qcow2(GOOD, header_length=104),
        images.with_extension(GOOD, 0x12345678, b"anything"),
        images.with_extension(GOOD, 0x23852875, struct.pack(">IIQQ", 1, 0, 64, 512)),
    ],
)
def test_a_sound_header_has_no_findings(image: bytes) -> None:
    assert rules_of(image) == set()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"magic": 0}, "magic"),
        ({"version": 0}, "version 0"),
        ({"version": 1}, "version 1"),
        ({"version": 4}, "version 4"),
        ({"version": 99}, "version 99"),
        ({"cluster_bits": 0}, "cluster_bits 0"),
        ({"cluster_bits": 8}, "cluster_bits 8"),
        ({"cluster_bits": 22}, "cluster_bits 22"),
        ({"cluster_bits": 63}, "cluster_bits 63"),
        ({"cluster_bits": 0xFFFFFFFF}, "cluster_bits"),
        ({"header_length": 0}, "header length 0"),
        ({"header_length": 8}, "header length 8"),
        ({"header_length": 72}, "header length 72"),
        ({"header_length": 105}, "header length 105"),
        ({"header_length": 0xFFFFFFF8}, "header length"),
        ({"compression_type": 2}, "compression type 2"),
    ],
)
def test_a_header_that_makes_no_sense_cannot_be_read(fields: dict[str, int], words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        parse_header(images.poke_qcow2(GOOD, **fields))
    assert caught.value.exit_code == 8
    assert caught.value.reason == "UnsupportedFormat"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"backing_file_offset": 1024}, "backing-file"),
        ({"backing_file_size": 4}, "backing-file"),
        ({"backing_file_offset": 1 << 60, "backing_file_size": 0xFFFFFFFF}, "backing-file"),
        ({"incompatible_features": 1 << 2}, "data-file"),
        ({"incompatible_features": 1 << 1}, "corrupt"),
        ({"incompatible_features": 1 << 5}, "unknown-features"),
        ({"incompatible_features": 1 << 63}, "unknown-features"),
        ({"incompatible_features": 1 << 3}, "compression-type"),
        ({"compression_type": 1}, "compression-type"),
        ({"crypt_method": 1}, "encryption"),
        ({"crypt_method": 2}, "encryption"),
        ({"crypt_method": 7}, "encryption"),
        ({"nb_snapshots": 1}, "snapshots"),
        ({"nb_snapshots": 0xFFFFFFFF}, "snapshots"),
        ({"size": 0}, "virtual-size"),
        ({"size": 1000}, "virtual-size"),
        ({"size": 1 << 63}, "virtual-size"),
        ({"size": (1 << 64) - 512}, "virtual-size"),
        ({"size": 1 << 40}, "l1-table"),
        ({"l1_size": 0}, "l1-table"),
        ({"l1_size": MAX_L1_BYTES // 8 + 1}, "l1-table"),
        ({"l1_size": 0x7FFFFFFF}, "l1-table"),
        ({"l1_table_offset": 0}, "l1-table"),
        ({"l1_table_offset": 3 * 65536 + 8}, "l1-table"),
        ({"l1_table_offset": 1 << 40}, "l1-table"),
        ({"l1_table_offset": (1 << 64) - 65536}, "l1-table"),
        ({"l1_table_offset": 65536}, "table-overlap"),
        ({"refcount_table_offset": 0}, "refcount-table"),
        ({"refcount_table_offset": 65537}, "refcount-table"),
        ({"refcount_table_offset": 1 << 50}, "refcount-table"),
        ({"refcount_table_clusters": 0x7FFFFFFF}, "refcount-table"),
        ({"refcount_table_clusters": 129}, "refcount-table"),
        ({"refcount_order": 7}, "refcount-order"),
        ({"refcount_order": 0xFFFFFFFF}, "refcount-order"),
    ],
)
def test_each_evil_field_is_found(fields: dict[str, int], rule: str) -> None:
    assert rule in rules_of(images.poke_qcow2(GOOD, **fields))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "missing.qcow2", "nbd://127.0.0.1/x", 'json:{"driver":"file","filename":"/etc/passwd"}']
)
def test_names_of_other_files_are_found_and_told(name: str) -> None:
    backed, external = images.with_backing_file(GOOD, name), images.with_data_file(GOOD, name)
    assert parse_header(backed).backing_file == name
    assert rules_of(backed) == {"backing-file"}
    assert parse_header(external).data_file == name
    assert rules_of(external) == {"data-file"}


def test_a_data_file_name_without_its_feature_bit_is_found() -> None:
    assert rules_of(images.poke_qcow2(images.with_data_file(GOOD, "x"), incompatible_features=0)) == {"data-file"}


@pytest.mark.parametrize(
    ("kind", "content", "size_bytes", "rule"),
    [
        (0x0537BE77, bytes(16), None, "encryption"),
        (0x12345678, b"", 0xFFFFFFFF, "header-extensions"),
        (0x6803F857, b"", 1 << 20, "header-extensions"),
        (0x23852875, bytes(23), None, "bitmaps"),
        (0x23852875, struct.pack(">IIQQ", 1, 0, 1 << 30, 0), None, "bitmaps"),
        (0x23852875, struct.pack(">IIQQ", 1, 0, 512, 1 << 50), None, "bitmaps"),
    ],
)
def test_each_evil_extension_is_found(kind: int, content: bytes, size_bytes: int | None, rule: str) -> None:
    assert rule in rules_of(images.with_extension(GOOD, kind, content, size_bytes=size_bytes))


def test_endless_extensions_are_found() -> None:
    image = images.poke(GOOD, 112, struct.pack(">II", 0x11111111, 0) * 1000)
    assert rules_of(image) == {"header-extensions"}


def test_extensions_beyond_the_bytes_that_are_looked_at_are_refused() -> None:
    """With large clusters a reader follows them further than we look."""
    image = images.qcow2_image(cluster_bits=17)
    filler = images.with_extension(image, 0x11111111, bytes(65536 - 120))
    with pytest.raises(ImageError, match="go on at 65536"):
        parse_header(filler[:65536])
    assert header_findings(parse_header(filler[: 1 << 17]), file_size_bytes=len(filler)) == ()


def test_two_bitmap_directories_are_found() -> None:
    extension = struct.pack(">IIIIQQ", 0x23852875, 24, 1, 0, 32, 65536)
    assert "bitmaps" in rules_of(images.poke(GOOD, 112, extension * 2))
    assert "bitmaps" not in rules_of(images.poke(GOOD, 112, extension))


def test_subclusters_of_less_than_a_sector_are_found() -> None:
    assert "extended-l2" in rules_of(images.qcow2_image(cluster_bits=12, incompatible_features=16))


def test_every_finding_is_reported_and_not_the_first_alone() -> None:
    image = images.poke_qcow2(images.with_backing_file(GOOD, "a"), crypt_method=1, nb_snapshots=3, size=1)
    assert rules_of(image) == {"backing-file", "encryption", "snapshots", "virtual-size"}


def test_short_heads_are_read_as_if_zeros_followed() -> None:
    header = parse_header(images.with_backing_file(GOOD, "/etc/passwd")[:300])
    assert header.backing_file == "(a name outside the header)"
    assert "l1-table" in rules_of(GOOD[:300])


def test_tables_are_not_held_against_an_unknown_size() -> None:
    header = parse_header(images.poke_qcow2(GOOD, l1_table_offset=1 << 40))
    assert header_findings(header, file_size_bytes=None) == ()


def test_version_2_ignores_what_only_version_3_has() -> None:
    header = parse_header(images.poke_qcow2(GOOD_V2, incompatible_features=4, header_length=7, compression_type=9))
    assert (header.version, header.header_length_bytes, header.refcount_order) == (2, 72, 4)
    assert not header.has_extended_l2


def test_places_of_compressed_clusters() -> None:
    header = parse_header(GOOD)
    entry = images.COMPRESSED | 5 << 54 | 0x12345
    assert header.compressed_range(entry) == (0x12345, 6 * 512 - 0x145)
