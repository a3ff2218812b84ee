"""Rule R13: no cluster outside the file, and none with two uses."""

from __future__ import annotations

import pytest

from imagekit.formats.qcow2 import parse_header
from imagekit.formats.qcow2_walk import ClusterCensus, walk_tables
from tests.support import images
from tests.support.images import COMPRESSED, COPIED, BytesReader

CLUSTER = 65536
GOOD = images.qcow2_image()
TABLE = images.qcow2_table(GOOD)
PACKED = images.qcow2_image(compression="zlib")


def entry_of(image: bytes, index: int) -> int:
    return int.from_bytes(image[TABLE + index * 8 : TABLE + index * 8 + 8], "big")


def census_of(image: bytes) -> ClusterCensus:
    return walk_tables(parse_header(image), BytesReader(image))


def rules_of(image: bytes) -> set[str]:
    return {finding.rule for finding in census_of(image).findings}


def test_what_is_mapped_is_counted() -> None:
    census = census_of(GOOD)
    assert (census.plain_clusters, census.compressed_clusters, census.allocated_bytes) == (6, 0, 6 * CLUSTER)
    assert census.compressed_share == 0.0
    assert census_of(PACKED).compressed_share == 1.0
    assert census_of(images.qcow2_image(bytes(1 << 20))).compressed_share is None


def test_subclusters_are_counted() -> None:
    image = images.qcow2_image(has_extended_l2=True)
    halved = images.poke(image, TABLE + 8, 0xFFFF.to_bytes(8, "big"))
    assert census_of(image).allocated_bytes - census_of(halved).allocated_bytes == CLUSTER // 2
    assert rules_of(halved) == set()


def test_clusters_of_zeros_hold_nothing_whether_they_have_a_place_or_not() -> None:
    for entry in (1, entry_of(GOOD, 0) | 1):
        image = images.poke_l2(GOOD, 0, entry)
        assert (census_of(image).plain_clusters, rules_of(image)) == (5, set())


def test_a_disk_is_never_more_than_wholly_allocated() -> None:
    assert census_of(images.qcow2_image(b"x" * 70000, size=69632)).allocated_bytes == 69632


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        (1 << 40 | COPIED, "outside-file"),
        (len(GOOD) | COPIED, "outside-file"),
        (0x00FF_FFFF_FFFF_0000, "outside-file"),
        (7 * CLUSTER + 512, "cluster-alignment"),
        (0 * CLUSTER + 512, "cluster-alignment"),
        (1 * CLUSTER, "cluster-overlap"),  # the refcount table
        (3 * CLUSTER, "cluster-overlap"),  # the L1 table
        (4 * CLUSTER, "cluster-overlap"),  # the L2 table itself
        (entry_of(GOOD, 3), "cluster-overlap"),  # another cluster's data
        (COMPRESSED | 1 << 40, "outside-file"),
        (COMPRESSED | (len(GOOD) - 1) | 0xFF << 54, "outside-file"),
        (COMPRESSED | 16, "cluster-overlap"),
        (COMPRESSED | entry_of(GOOD, 3) & ~COPIED, "cluster-overlap"),
    ],
)
def test_each_evil_entry_is_found(entry: int, rule: str) -> None:
    assert rules_of(images.poke_l2(GOOD, 0, entry)) == {rule}


def test_compressed_clusters_may_share_a_host_cluster_but_not_their_bytes() -> None:
    assert rules_of(PACKED) == set()
    assert rules_of(images.poke_l2(PACKED, 0, entry_of(PACKED, 3))) == {"cluster-overlap"}


def test_one_cluster_cannot_become_an_endless_disk() -> None:
    image = PACKED
    for index in range(16):
        image = images.poke_l2(image, index, entry_of(PACKED, 0))
    assert rules_of(image) == {"cluster-overlap"}


def test_an_l2_table_cannot_be_used_twice() -> None:
    image = images.poke_qcow2(GOOD, l1_size=2)
    l1 = int.from_bytes(image[40:48], "big")
    assert rules_of(images.poke(image, l1 + 8, image[l1 : l1 + 8])) == {"cluster-overlap"}


def test_an_l2_table_must_be_inside_the_file() -> None:
    l1 = int.from_bytes(GOOD[40:48], "big")
    assert rules_of(images.poke(GOOD, l1, (1 << 40).to_bytes(8, "big"))) == {"outside-file"}
    assert rules_of(GOOD[: TABLE + 4096]) == {"outside-file"}


@pytest.mark.parametrize(("version", "entry_bits"), [(2, 0), (3, 0), (3, 1)])
def test_a_cut_cluster_has_lost_data_unless_it_is_of_zeros(version: int, entry_bits: int) -> None:
    """QEMU would read zeros and say nothing."""
    image = images.qcow2_image(version=version)
    last = max(range(16), key=lambda index: entry_of(image, index) & ~COPIED)
    cut = images.poke_l2(image, last, entry_of(image, last) | entry_bits)[:-65000]
    assert rules_of(cut) == (set() if entry_bits else {"outside-file"})


def test_the_last_cluster_of_the_disk_may_be_as_short_as_the_disk() -> None:
    image = images.qcow2_image(b"x" * (CLUSTER + 512))
    assert rules_of(image[: -CLUSTER + 512]) == set()
    assert rules_of(image[: -CLUSTER + 511]) == {"outside-file"}
