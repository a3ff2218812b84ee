"""Images that are made to harm, or broken on the way: a named error or the right disk, never anything else."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImageError, ImagekitError, VerificationError
from imagekit.base.process import ProcessLimits, run
from imagekit.base.units import MIB
from imagekit.image import DiskFormat
from imagekit.stream import DecodedDisk, DecodeLimits, LateTablesError, decode_random, decode_stream
from tests.imagekit.stream.doubles import ChoppyStream, MemoryDisk, read_at_random, streamed
from tests.support.images import (
    COMPRESSED,
    COPIED,
    BytesReader,
    poke,
    poke_l2,
    poke_qcow2,
    qcow2_image,
    qcow2_table,
    sample_disk,
    with_backing_file,
    with_data_file,
)

Decode = Callable[[bytes], tuple[bytes, DecodedDisk]]
DECODERS: dict[str, Decode] = {"stream": streamed, "random": read_at_random}
SMALL = DecodeLimits(virtual_size_bytes=16 * MIB)
DISK = sample_disk()
GOOD = {
    "plain": qcow2_image(DISK),
    "version 2": qcow2_image(DISK, version=2),
    "small clusters": qcow2_image(sample_disk(1 << 16, step_bytes=3000), cluster_bits=9),
    "zlib": qcow2_image(DISK, compression="zlib"),
    "zstd": qcow2_image(DISK, compression="zstd"),
    "subclusters": qcow2_image(DISK, has_extended_l2=True),
}


@pytest.fixture(params=DECODERS)
def decode(request: pytest.FixtureRequest) -> Decode:
    return DECODERS[request.param]


def first_entry(image: bytes) -> int:
    """Return the first L2 entry."""
    return int.from_bytes(image[qcow2_table(image) :][:8], "big")


@pytest.mark.parametrize("name", GOOD)
def test_good_images(name: str, decode: Decode) -> None:
    size = int.from_bytes(GOOD[name][24:32], "big")
    expected = DISK if size == len(DISK) else sample_disk(1 << 16, step_bytes=3000)
    content, decoded = decode(GOOD[name])
    assert bool(content == expected)
    assert decoded.format is DiskFormat.QCOW2
    assert decoded.virtual_size_bytes == size
    assert 0 < decoded.written_bytes <= size


UNSAFE_HEADERS = {
    "backing file": with_backing_file(GOOD["plain"], "/etc/passwd"),
    "data file": with_data_file(GOOD["plain"], "/etc/passwd"),
    "encrypted": poke_qcow2(GOOD["plain"], crypt_method=1),
    "corrupt bit": poke_qcow2(GOOD["plain"], incompatible_features=2),
    "unknown bit": poke_qcow2(GOOD["plain"], incompatible_features=1 << 40),
    "version": poke_qcow2(GOOD["plain"], version=1),
    "not qcow2": DISK,
    "nothing": b"",
    "cluster bits": poke_qcow2(GOOD["plain"], cluster_bits=63),
    "no size": poke_qcow2(GOOD["plain"], size=0),
    "huge size": poke_qcow2(GOOD["plain"], size=1 << 62, l1_size=1 << 22),
    "L1 too small": poke_qcow2(GOOD["plain"], size=1 << 40),
    "L1 too large": poke_qcow2(GOOD["plain"], l1_size=0x7FFFFFFF),
    "L1 unaligned": poke_qcow2(GOOD["plain"], l1_table_offset=3 * 65536 + 8),
    "L1 over the header": poke_qcow2(GOOD["plain"], l1_table_offset=0),
    "refcount table too large": poke_qcow2(GOOD["plain"], refcount_table_clusters=0x7FFFFFFF),
}


@pytest.mark.parametrize("name", UNSAFE_HEADERS)
def test_unsafe_headers_are_refused_before_anything_is_written(name: str) -> None:
    image, disk = UNSAFE_HEADERS[name], MemoryDisk()
    with pytest.raises(ImageError):
        decode_stream(DiskFormat.QCOW2, ChoppyStream(image), disk)
    with pytest.raises(ImageError):
        decode_random(DiskFormat.QCOW2, BytesReader(image), disk)
    assert disk.sizes == []


def with_entries(*entries: int, name: str = "plain") -> bytes:
    """Return a good image with the first entries of its first L2 table replaced."""
    image = GOOD[name]
    for index, entry in enumerate(entries):
        image = poke_l2(image, index, entry)
    return image


DATA = first_entry(GOOD["plain"])
PACKED = first_entry(GOOD["zlib"])
TABLE = qcow2_table(GOOD["plain"])
DAMAGED = {
    "a cluster mapped twice": with_entries(DATA, DATA),
    "a compressed cluster mapped twice": with_entries(PACKED, PACKED, name="zlib"),
    "compressed data in the header": with_entries(COMPRESSED | 512),
    "data in the L2 table": with_entries(TABLE | COPIED),
    "data in the L1 table": with_entries(3 * 65536 | COPIED),
    "data in the refcount table": with_entries(65536 | COPIED),
    "data in a refcount block": with_entries(2 * 65536 | COPIED),
    "compressed data in the L2 table": with_entries(COMPRESSED | TABLE),
    "compressed data that is none": with_entries(COMPRESSED | DATA & ~COPIED),
    "an unaligned cluster": with_entries(DATA + 512),
    "an unaligned zero cluster": with_entries(DATA + 512 | 1),
    "a zero cluster in version 2": with_entries(1, name="version 2"),
    "an L2 table twice": poke(GOOD["small clusters"], 3 * 512 + 8, struct.pack(">Q", qcow2_table(GOOD["small clusters"]) | COPIED)),
    "an unaligned L2 table": poke(GOOD["plain"], 3 * 65536, struct.pack(">Q", TABLE + 512)),
    "a subcluster that is both": poke(GOOD["subclusters"], qcow2_table(GOOD["subclusters"]) + 8, b"\xff" * 8),
    "subclusters without a cluster": poke(GOOD["subclusters"], qcow2_table(GOOD["subclusters"]), bytes(8)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_tables(name: str, decode: Decode) -> None:
    with pytest.raises(ImageError) as caught:
        decode(DAMAGED[name])
    assert caught.value.reason == "UnsafeImage"


BEYOND = {
    "data": with_entries(1 << 40 | COPIED),
    "data far away": with_entries((1 << 56) - 65536 | COPIED),
    "compressed data": with_entries(COMPRESSED | 1 << 40),
    "an L2 table": poke(GOOD["plain"], 3 * 65536, struct.pack(">Q", 1 << 40 | COPIED)),
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_is_missing_is_never_a_hole(name: str, decode: Decode) -> None:
    with pytest.raises(VerificationError) as caught:
        decode(BEYOND[name])
    assert caught.value.reason == "TruncatedStream"


def test_a_frame_that_claims_more_than_a_cluster(decode: Decode) -> None:
    import zstandard

    bomb = zstandard.compress(bytes(64 * MIB))
    image = GOOD["zstd"]
    start = first_entry(image) & ((1 << 54) - 1)
    with pytest.raises(ImageError, match="compressed cluster"):
        decode(poke(image, start, bomb[:16]))


def test_the_length_that_was_promised() -> None:
    for size, reason in ((len(GOOD["plain"]) + 1, "TruncatedStream"), (len(GOOD["plain"]) - 1, "SizeMismatch")):
        with pytest.raises(VerificationError) as caught:
            decode_stream(DiskFormat.QCOW2, ChoppyStream(GOOD["plain"]), MemoryDisk(), size_bytes=size)
        assert caught.value.reason == reason


def test_limits() -> None:
    for limits, reason in (
        (DecodeLimits(virtual_size_bytes=len(DISK) - 1), "TooLarge"),
        (DecodeLimits(table_bytes=0), "UnsafeImage"),
        (DecodeLimits(mapping_bytes=0), "UnsupportedFormat"),
    ):
        with pytest.raises(ImageError) as caught:
            streamed(GOOD["plain"], limits=limits)
        assert caught.value.reason == reason


def test_trailing_bytes_need_no_room() -> None:
    """What follows when every table was seen can belong to nothing."""
    content, _ = streamed(GOOD["plain"] + bytes(range(256)) * 32768, limits=DecodeLimits(pending_bytes=MIB), spill=None)
    assert bool(content == DISK)


def test_tables_that_never_come_are_no_reason_to_fill_the_memory() -> None:
    late = poke_qcow2(GOOD["plain"], l1_table_offset=1 << 40)
    with pytest.raises(LateTablesError):
        streamed(late + bytes(4 * MIB), limits=DecodeLimits(pending_bytes=2 * MIB), spill=None)


@st.composite
def flipped(draw: st.DrawFn) -> bytes:
    image = bytearray(GOOD[draw(st.sampled_from(sorted(GOOD)))])
    table = qcow2_table(bytes(image))
    l1 = int.from_bytes(image[40:48], "big")
    places = st.one_of(
        st.integers(0, 111), st.integers(l1, l1 + 15), st.integers(table, table + 400), st.integers(0, len(image) - 1)
    )
    for _ in range(draw(st.integers(1, 3))):
        image[draw(places)] ^= 1 << draw(st.integers(0, 7))
    return bytes(image[: draw(st.one_of(st.just(len(image)), st.integers(0, len(image))))])


def outcome(image: bytes, decode: Callable[[MemoryDisk], object]) -> bytes | type[Exception]:
    disk = MemoryDisk()
    try:
        decode(disk)
    except ImagekitError as error:
        return type(error)
    return bytes(disk.content)


@given(image=flipped(), seed=st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_flipped_bits_end_in_a_disk_or_a_named_error(image: bytes, seed: int) -> None:
    first = outcome(image, lambda disk: decode_random(DiskFormat.QCOW2, BytesReader(image), disk, limits=SMALL))
    second = outcome(image, lambda disk: decode_stream(DiskFormat.QCOW2, ChoppyStream(image, seed=seed), disk, limits=SMALL))
    if isinstance(first, bytes) and isinstance(second, bytes):
        assert bool(first == second)


@pytest.mark.process
@given(image=flipped())
@settings(max_examples=40, deadline=None)
def test_what_is_read_of_a_broken_image_is_what_qemu_reads(image: bytes) -> None:
    decoded = outcome(image, lambda disk: decode_random(DiskFormat.QCOW2, BytesReader(image), disk, limits=SMALL))
    if isinstance(decoded, type):
        return
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "disk.qcow2"), Path(directory, "disk.raw")
        source.write_bytes(image)
        argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(source), str(target)]
        limits = ProcessLimits(timeout_seconds=60)
        if run(argv, purpose="read it", limits=limits, accepted_exit_codes=frozenset({0, 1})).exit_code == 0:
            assert bool(target.read_bytes() == decoded)
