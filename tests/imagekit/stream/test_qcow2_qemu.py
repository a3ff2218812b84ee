"""The qcow2 decoders against qemu-img: whatever QEMU made of an image must come out as QEMU reads it."""

from __future__ import annotations

import contextlib
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagekit.base.errors import ImagekitError
from imagekit.base.process import ProcessLimits, run
from imagekit.base.units import KIB, MIB
from imagekit.stream import DecodeLimits, LateTablesError, windows
from tests.imagekit.stream.doubles import read_at_random, streamed
from tests.support.qemu import qemu_img, qemu_io

pytestmark = pytest.mark.process

NO_MEMORY = DecodeLimits(pending_bytes=0)


def disk_in(image: Path) -> bytes:
    """Return the disk as qemu-img reads it."""
    raw = image.with_suffix(".raw")
    qemu_img("convert", "-f", "qcow2", "-O", "raw", image, raw)
    return raw.read_bytes()


def assert_decodes(image: Path, *, seed: int = 0) -> None:
    """Decode an image in every way, and compare with qemu-img."""
    expected, content = disk_in(image), image.read_bytes()
    # Compared before the assertion: a failing comparison of megabytes must not be explained byte by byte.
    assert bool(streamed(content, seed=seed)[0] == expected)
    assert bool(read_at_random(content)[0] == expected)
    with pytest.MonkeyPatch.context() as patch:
        # Small windows cut through everything that lies together.
        patch.setattr(windows, "_WINDOW_BYTES", 64 * KIB)
        assert bool(streamed(content, seed=seed, limits=NO_MEMORY)[0] == expected)
    with contextlib.suppress(LateTablesError):
        decoded = streamed(content, limits=DecodeLimits(pending_bytes=128 * KIB), spill=None)[0]
        assert bool(decoded == expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an image comes to be."""

    size_bytes: int
    options: str
    first: tuple[str, ...]
    has_snapshot: bool
    grown_bytes: int
    later: tuple[str, ...]
    seed: int


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    bits = draw(st.integers(9, 21))
    cluster_bytes = 1 << bits
    version = draw(st.sampled_from(["0.10", "1.1", "1.1", "1.1"]))
    options = [f"compat={version}", f"cluster_size={cluster_bytes}"]
    if version == "1.1":
        options.append(f"compression_type={draw(st.sampled_from(['zlib', 'zstd']))}")
        if bits >= 14 and draw(st.booleans()):
            options.append("extended_l2=on")
    options.append(f"preallocation={draw(st.sampled_from(['off', 'off', 'metadata', 'falloc', 'full']))}")
    clusters = min(64, 3 * MIB // cluster_bytes + 3) if bits > 11 else 1500
    size_bytes = clusters * cluster_bytes + draw(st.sampled_from([0, 512, 1536]))
    grown_bytes = draw(st.sampled_from([0, 0, 512, 5 * cluster_bytes, 70_000 * 512]))
    return Recipe(
        size_bytes=size_bytes,
        options=",".join(options),
        first=draw(commands(size_bytes, cluster_bytes)),
        has_snapshot=draw(st.booleans()),
        grown_bytes=grown_bytes,
        later=draw(commands(size_bytes + grown_bytes, cluster_bytes)),
        seed=draw(st.integers(0, 1000)),
    )


@st.composite
def commands(draw: st.DrawFn, size_bytes: int, cluster_bytes: int) -> tuple[str, ...]:
    drawn = []
    for _ in range(draw(st.integers(1, 8))):
        verb = draw(st.sampled_from(["write -P", "write -P", "write -P", "write -c -P", "write -z", "write -z -u", "discard"]))
        unit = cluster_bytes if "-c" in verb else 512
        start = draw(st.integers(0, size_bytes // unit - 1)) * unit
        most_bytes = size_bytes - start
        length = min(
            most_bytes // unit * unit, draw(st.integers(1, 40)) * draw(st.sampled_from([unit, max(unit, 4096), cluster_bytes]))
        )
        pattern = f" {draw(st.integers(0, 255))}" if "-P" in verb else ""
        drawn.append(f"{verb}{pattern} {start} {length}")
    return tuple(drawn)


def attempt(image: Path, written: tuple[str, ...]) -> None:
    """Run qemu-io commands; QEMU refuses to write compressed where something is, and goes on."""
    options = [part for command in written for part in ("-c", command)]
    limits = ProcessLimits(timeout_seconds=60)
    run(["qemu-io", "-f", "qcow2", *options, str(image)], purpose="write", limits=limits, accepted_exit_codes=frozenset({0, 1}))


@given(recipe=recipes())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_written_images(recipe: Recipe) -> None:
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory, "disk.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-o", recipe.options, image, str(recipe.size_bytes))
        attempt(image, recipe.first)
        if recipe.grown_bytes:
            qemu_img("resize", "-q", "-f", "qcow2", image, f"+{recipe.grown_bytes}")
        if recipe.has_snapshot:
            qemu_img("snapshot", "-c", "before", image)
        attempt(image, recipe.later)
        assert_decodes(image, seed=recipe.seed)


def varied_raw(path: Path, *, size_bytes: int) -> Path:
    """Write a raw disk of text, noise, zeros and holes, in pieces of odd sizes."""
    source = random.Random(7)
    content = bytearray()
    while len(content) < size_bytes:
        length = source.choice([512, 4096, 60_000, 65536, 300_000])
        content += source.choice([bytes(length), source.randbytes(length), b"lines of text\n" * (length // 14)])
    path.write_bytes(content[:size_bytes])
    return path


CONVERSIONS = {
    "plain": (),
    "small clusters": ("-o", "cluster_size=512"),
    "large clusters": ("-o", "cluster_size=2M"),
    "version 2": ("-o", "compat=0.10"),
    "out of order": ("-W", "-m", "16"),
    "zlib": ("-c",),
    "zlib out of order": ("-c", "-W", "-m", "16"),
    "zlib in small clusters": ("-c", "-o", "cluster_size=512"),
    "zlib in 4K clusters": ("-c", "-o", "cluster_size=4K"),
    "zlib in large clusters": ("-c", "-o", "cluster_size=2M"),
    "zstd": ("-c", "-o", "compression_type=zstd"),
    "zstd in 1K clusters": ("-c", "-o", "compression_type=zstd,cluster_size=1K"),
    "zstd in large clusters": ("-c", "-W", "-o", "compression_type=zstd,cluster_size=2M"),
    "subclusters": ("-o", "extended_l2=on,cluster_size=128K"),
    "compressed with subclusters": ("-c", "-o", "extended_l2=on,cluster_size=16K"),
    "preallocated": ("-o", "preallocation=metadata"),
    "wide refcounts": ("-o", "refcount_bits=64,cluster_size=1K"),
    "lazy refcounts": ("-o", "lazy_refcounts=on"),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_raw(tmp_path_factory.mktemp("raw") / "disk.raw", size_bytes=5 * MIB + 1536)


@pytest.mark.parametrize("name", CONVERSIONS)
def test_converted_images(name: str, raw: Path, tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *CONVERSIONS[name], raw, image)
    assert_decodes(image)


def test_tables_at_the_end(raw: Path, tmp_path: Path) -> None:
    """A resize beyond the L1 table moves it behind all data: every cluster is late."""
    image = tmp_path / "disk.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=1K", raw, image)
    qemu_img("resize", "-q", "-f", "qcow2", image, "+64M")
    content = image.read_bytes()
    assert int.from_bytes(content[40:48], "big") > 3 * MIB, "the L1 table did not move"
    with pytest.raises(LateTablesError):
        streamed(content, limits=DecodeLimits(pending_bytes=MIB), spill=None)
    assert_decodes(image)


def test_rewritten_image(tmp_path: Path) -> None:
    """Discarded room is used again, before the tables that name it."""
    image = tmp_path / "disk.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4K", image, "16M")
    source = random.Random(3)
    for discarded in (False, True):
        places = [source.randrange(0, 4000) * 4096 for _ in range(150)]
        if discarded:
            qemu_io(image, "qcow2", *(f"discard {place} 4096" for place in places))
        qemu_io(image, "qcow2", *(f"write -P {number % 255 + 1} {place} 4096" for number, place in enumerate(places)))
    assert_decodes(image)


@pytest.mark.parametrize("name", ["plain", "zlib", "zstd", "subclusters", "small clusters"])
def test_a_cut_image_is_an_error(name: str, tmp_path: Path) -> None:
    raw = varied_raw(tmp_path / "disk.raw", size_bytes=700_928)
    image = tmp_path / "disk.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *CONVERSIONS[name], raw, image)
    content, expected = image.read_bytes(), raw.read_bytes()
    for size in {*range(0, len(content), len(content) // 40), 512, 4096, 65536, 196608, 262144, len(content) - 1}:
        for decode in (streamed, read_at_random):
            try:
                decoded = decode(content[:size])[0]
            except ImagekitError:
                continue
            # Only what holds nothing of the disk may be missing: padding, or a refcount block that was written last.
            assert bool(decoded == expected), size
            assert size > 0.95 * len(content)
