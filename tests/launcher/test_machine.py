"""Where the console goes: a file, a pipe that has its reader, or standard output while there is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from imagekit.base.errors import NotFoundError, UsageError
from launcher.machine import _open_console_file, _terminal_output


def test_console_file_is_appended_to_and_private(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for text in (b"one", b"two"):
        descriptor = _open_console_file(str(log))
        assert os.get_blocking(descriptor)
        os.write(descriptor, text)
        os.close(descriptor)
    assert log.read_bytes() == b"onetwo"
    assert log.stat().st_mode & 0o777 == 0o600


def test_pipe_without_a_reader_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="nobody reads the pipe"):
        _open_console_file(str(tmp_path / "pipe"))


def test_console_without_a_directory_names_itself(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"open the console '.*/absent/log'"):
        _open_console_file(str(tmp_path / "absent" / "log"))


def test_closed_standard_output_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(UsageError, match="standard output is closed"):
        _terminal_output()
