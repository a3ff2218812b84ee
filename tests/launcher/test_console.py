"""The console between a guest, played by a socket, and a user, played by pipes and a pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launcher.console import console

pytestmark = pytest.mark.network


@dataclass
class Ends:
    guest: socket.socket
    user_out: int
    user_in: int
    escapes: list[int] = field(default_factory=list)

    def typed(self, size: int) -> bytes:
        """Return the next ``size`` bytes that the guest gets."""
        got = b""
        while len(got) < size:
            got += self.guest.recv(size - len(got))
        return got

    def shown(self, size: int) -> bytes:
        """Return the next ``size`` bytes that the user sees."""
        seen = b""
        while len(seen) < size:
            assert select.select([self.user_out], [], [], 10)[0], f"only {seen!r} came"
            seen += os.read(self.user_out, size - len(seen))
        return seen


@contextlib.contextmanager
def connected(directory: Path, *, input_fd: int, user_in: int) -> Iterator[Ends]:
    user_out, output_fd = os.pipe()
    escapes: list[int] = []
    try:
        with (
            console(directory / "socket", input_fd=input_fd, output_fd=output_fd, on_escape=lambda: escapes.append(1)),
            socket.socket(socket.AF_UNIX) as guest,
        ):
            guest.settimeout(10)
            guest.connect(str(directory / "socket"))
            yield Ends(guest=guest, user_out=user_out, user_in=user_in, escapes=escapes)
    finally:
        os.close(output_fd)
        os.close(user_out)


@pytest.fixture
def piped(tmp_path: Path) -> Iterator[Ends]:
    input_fd, user_in = os.pipe()
    with connected(tmp_path, input_fd=input_fd, user_in=user_in) as ends:
        yield ends
    os.close(input_fd)
    with contextlib.suppress(OSError):
        os.close(user_in)


def test_bytes_go_both_ways_unchanged(piped: Ends) -> None:
    every_byte = bytes(range(256))
    piped.guest.sendall(every_byte)
    assert piped.shown(256) == every_byte
    os.write(piped.user_in, every_byte)
    assert piped.typed(256) == every_byte
    assert piped.escapes == []


def test_end_of_input_is_not_the_end(piped: Ends) -> None:
    os.close(piped.user_in)
    piped.guest.sendall(b"still here")
    assert piped.shown(10) == b"still here"


def test_guest_that_prints_much_waits_for_its_reader(piped: Ends) -> None:
    """What nobody reads fills the kernel's buffers and then holds up the guest; it does not grow here."""
    piped.guest.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 1 << 24:
            sent += piped.guest.send(b"x" * 65536)
    assert sent < 1 << 22
    reader = threading.Thread(target=piped.shown, args=(sent,))
    reader.start()
    reader.join(20)
    assert not reader.is_alive()


def test_guest_that_does_not_read_holds_up_the_keyboard(piped: Ends) -> None:
    os.set_blocking(piped.user_in, False)
    typed = 0
    while typed < 1 << 24:
        if not select.select([], [piped.user_in], [], 0.5)[1]:
            break
        typed += os.write(piped.user_in, b"y" * 4096)
    assert typed < 1 << 22
    piped.guest.sendall(b"output goes on")
    assert piped.shown(14) == b"output goes on"


def test_last_words_are_shown_after_the_guest_has_gone(tmp_path: Path) -> None:
    user_out, output_fd = os.pipe()
    with (
        console(tmp_path / "socket", input_fd=None, output_fd=output_fd, on_escape=lambda: None),
        socket.socket(socket.AF_UNIX) as guest,
    ):
        guest.connect(str(tmp_path / "socket"))
        guest.sendall(b"Power down\n")
    os.close(output_fd)
    assert os.read(user_out, 100) == b"Power down\n"
    os.close(user_out)


def test_console_that_nobody_connects_to_ends(tmp_path: Path) -> None:
    with console(tmp_path / "socket", input_fd=None, output_fd=1, on_escape=lambda: None):
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600
    assert not [thread for thread in threading.enumerate() if thread.name == "console"]


def test_reader_that_has_gone_does_not_end_the_machine(tmp_path: Path) -> None:
    user_out, output_fd = os.pipe()
    os.close(user_out)
    with (
        console(tmp_path / "socket", input_fd=None, output_fd=output_fd, on_escape=lambda: None),
        socket.socket(socket.AF_UNIX) as guest,
    ):
        guest.settimeout(10)
        guest.connect(str(tmp_path / "socket"))
        for _ in range(64):
            guest.sendall(b"z" * 65536)
    os.close(output_fd)


def test_file_as_input_is_typed_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "typed").write_bytes(b"k" * 100_000)
    input_fd = os.open(tmp_path / "typed", os.O_RDONLY)
    with connected(tmp_path, input_fd=input_fd, user_in=-1) as ends:
        assert ends.typed(100_000) == b"k" * 100_000
        ends.guest.sendall(b"ok")
        assert ends.shown(2) == b"ok"
    os.close(input_fd)


def test_terminal_is_raw_escapes_and_is_restored(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    with connected(tmp_path, input_fd=slave, user_in=master) as ends:
        assert not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        os.write(master, b"a\x03b\x1dc")
        assert ends.typed(4) == b"a\x03bc"
        os.write(master, b"\x1d\x1dd")
        assert ends.typed(1) == b"d"
        assert ends.escapes == [1, 1, 1]
    assert termios.tcgetattr(slave) == before
    os.close(slave)
    os.close(master)


def test_terminal_that_hangs_up_is_not_an_error(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    with connected(tmp_path, input_fd=slave, user_in=master) as ends:
        os.close(master)
        ends.guest.sendall(b"on")
        assert ends.shown(2) == b"on"
    os.close(slave)


def test_output_that_does_not_block_loses_nothing(tmp_path: Path) -> None:
    user_out, output_fd = os.pipe()
    os.set_blocking(output_fd, False)
    sent = 0
    with (
        console(tmp_path / "socket", input_fd=None, output_fd=output_fd, on_escape=lambda: None),
        socket.socket(socket.AF_UNIX) as guest,
        open(user_out, "rb") as reader,
    ):
        guest.settimeout(0.5)
        guest.connect(str(tmp_path / "socket"))
        with contextlib.suppress(TimeoutError):
            while sent < 1 << 24:
                sent += guest.send(b"x" * 65536)
        assert reader.read(sent) == b"x" * sent
    os.close(output_fd)


def test_output_without_room_does_not_end_the_input(tmp_path: Path) -> None:
    input_fd, user_in = os.pipe()
    output_fd = os.open("/dev/full", os.O_WRONLY)
    with (
        console(tmp_path / "socket", input_fd=input_fd, output_fd=output_fd, on_escape=lambda: None),
        socket.socket(socket.AF_UNIX) as guest,
    ):
        guest.settimeout(10)
        guest.connect(str(tmp_path / "socket"))
        guest.sendall(b"z" * (1 << 20))
        os.write(user_in, b"typed")
        assert guest.recv(5) == b"typed"
    for descriptor in (input_fd, user_in, output_fd):
        os.close(descriptor)
