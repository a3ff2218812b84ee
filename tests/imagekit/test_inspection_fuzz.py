"""Whatever the bytes are: a report or an error of ours, and never a read at a place that no file has."""

from __future__ import annotations

import gzip

from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError, VerificationError
from imagekit.inspection import inspect_reader
from tests.support import images
from tests.support.images import BytesReader

SAMPLES = [
    images.qcow2_image(),
    images.qcow2_image(version=2, cluster_bits=9, disk=images.sample_disk(65536)),
    images.qcow2_image(compression="zstd", has_extended_l2=True),
    images.vmdk_image(),
    images.vhd_dynamic(),
    images.vhd_fixed(),
    images.vdi_image(),
    images.iso_image(),
    images.gpt(("root", 34, 2000)),
    gzip.compress(images.qcow2_image(compression="zlib")),
]
# Where a structure is: most random places would fall into data that nobody looks at.
PLACES = st.one_of(
    st.integers(0, 600),
    st.integers(0, 512),
    st.integers(1024, 2600),
    st.sampled_from([3 * 65536, 4 * 65536, 4 * 65536 + 8, 22 * 512, 21 * 512, -512, -448]),
    st.integers(0, 1 << 20),
)
VALUES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7), b"\x40" + b"\xff" * 7, b"\0\0\0\1"]),
)


def judge(image: bytes) -> None:
    try:
        info = inspect_reader(BytesReader(image))
    except (ImageError, VerificationError):
        return
    assert info.virtual_size_bytes >= 0
    assert info.allocated_bytes is None or 0 <= info.allocated_bytes <= info.virtual_size_bytes
    assert info.compressed_share is None or 0 <= info.compressed_share <= 1


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=2000),
    st.sampled_from([b"", b"QFI\xfb\0\0\0\3", b"KDMV\1\0\0\0", b"conectix", b"vhdxfile", b"# Disk DescriptorFile\n"]),
)
def test_random_bytes(content: bytes, magic: bytes) -> None:
    judge(magic + content)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SAMPLES), st.lists(st.tuples(PLACES, VALUES), min_size=1, max_size=4), st.integers(0, 100_000))
def test_changed_images(image: bytes, changes: list[tuple[int, bytes]], cut: int) -> None:
    for place, value in changes:
        image = images.poke(image, place % len(image), value)
    judge(image)
    judge(image[: len(image) - cut] if cut < len(image) else b"")


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([65536, 131072, 196608, 2 << 20, 3 << 20]), st.integers(0, 300), VALUES), min_size=1, max_size=3
    )
)
def test_changed_vhdx(changes: list[tuple[int, int, bytes]]) -> None:
    image = images.vhdx_image()
    for start, offset, value in changes:
        image = images.poke(image, start + offset, value)
    judge(image)
