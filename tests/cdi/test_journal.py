"""The journal: it is believed only when it speaks of exactly this import, and never beyond its last whole line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cdi.journal import Journal, JournalHeader

HEADER = JournalHeader(identity="file:1:2:3:4", format="qcow2", disk_size_bytes=1 << 30, partial_inode=7)
NAME = ".disk.img.journal"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def written(directory: int, *offsets: int) -> Journal:
    journal = Journal(directory, NAME)
    journal.start(HEADER, done_bytes=0)
    for offset in offsets:
        journal.record(offset)
    journal.close()
    return journal


def test_the_last_offset_is_read_back(directory: int) -> None:
    written(directory, 10, 20, 30)
    assert Journal(directory, NAME).read_done_bytes(HEADER) == 30


def test_no_journal_means_from_the_start(directory: int) -> None:
    assert Journal(directory, NAME).read_done_bytes(HEADER) == 0


@pytest.mark.parametrize(
    "other",
    [
        replace(HEADER, identity="file:1:2:3:5"),
        replace(HEADER, format="raw"),
        replace(HEADER, disk_size_bytes=2 << 30),
        replace(HEADER, partial_inode=8),
    ],
)
def test_the_journal_of_another_import_is_not_believed(directory: int, other: JournalHeader) -> None:
    written(directory, 10)
    assert Journal(directory, NAME).read_done_bytes(other) == 0


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (b'{"done": 99', 20),  # torn
        (b"\0" * 100, 20),
        (b"garbage\n" + b'{"done": 99}\n', 20),
        (b'{"done": 5}\n', 20),  # backwards
        (b'{"done": "99"}\n', 20),
        (b'{"done": true}\n', 20),
        (b"[1]\n", 20),
        (b'{"done": 99}\n', 99),
    ],
)
def test_only_whole_sane_lines_count(directory: int, tmp_path: Path, added: bytes, expected: int) -> None:
    written(directory, 10, 20)
    with (tmp_path / NAME).open("ab") as file:
        file.write(added)
    assert Journal(directory, NAME).read_done_bytes(HEADER) == expected


def test_a_link_or_pipe_in_its_place_is_not_followed(directory: int, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(HEADER.to_line() + b'{"done": 9}\n')
    (tmp_path / NAME).symlink_to("elsewhere")
    assert Journal(directory, NAME).read_done_bytes(HEADER) == 0
    (tmp_path / NAME).unlink()
    os.mkfifo(tmp_path / NAME)
    assert Journal(directory, NAME).read_done_bytes(HEADER) == 0
    written(directory, 5)
    assert (tmp_path / "elsewhere").read_bytes().endswith(b'{"done": 9}\n')


def test_remove_leaves_nothing_and_may_be_repeated(directory: int, tmp_path: Path) -> None:
    journal = written(directory, 10)
    journal.remove()
    journal.remove()
    assert not list(tmp_path.iterdir())
