"""Progress as lines for people, lines for programs, bars, and silence."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import pytest

from imagekit.base.progress import Progress, ProgressMode, SilentProgress, open_progress
from imagekit.base.units import MIB


class SteppingClock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> float:
        return 1_700_000_000 + self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def push(progress: Progress, clock: SteppingClock, *, total_bytes: int | None, steps: int, seconds: float) -> None:
    with progress.phase("push", total_bytes) as phase:
        for _ in range(steps):
            clock.sleep(seconds)
            phase.advance(MIB)


def test_plain_lines_tell_amount_rate_and_rest(capsys: pytest.CaptureFixture[str]) -> None:
    clock = SteppingClock()
    push(open_progress(ProgressMode.PLAIN, clock=clock), clock, total_bytes=100 * MIB, steps=100, seconds=0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "2023-11-14T22:13:22Z  push  5.0 MiB of 100.0 MiB  5 %  2.0 MiB/s  eta 48 s"
    assert lines[-1] == "2023-11-14T22:14:10Z  push  100.0 MiB  2.0 MiB/s  done in 50 s"
    assert len(lines) == 21, "one for each 5 % and one for the end"


def test_plain_lines_are_rare_when_work_is_fast_or_long(capsys: pytest.CaptureFixture[str]) -> None:
    clock = SteppingClock()
    push(open_progress(ProgressMode.PLAIN, clock=clock), clock, total_bytes=100 * MIB, steps=100, seconds=0.001)
    assert len(capsys.readouterr().err.splitlines()) == 1
    push(open_progress(ProgressMode.PLAIN, clock=clock), clock, total_bytes=None, steps=60, seconds=1)
    assert len(capsys.readouterr().err.splitlines()) == 5, "each 15 s when the total is not known, and the end"


def test_resumed_bytes_count_for_the_share_and_not_for_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    clock = SteppingClock()
    with open_progress(ProgressMode.PLAIN, clock=clock).phase("fetch", 100 * MIB) as phase:
        phase.resume_at(50 * MIB)
        clock.sleep(10)
        phase.advance(10 * MIB)
    assert "60.0 MiB of 100.0 MiB  60 %  1.0 MiB/s  eta 40 s" in capsys.readouterr().err.splitlines()[0]


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines_are_a_contract(capsys: pytest.CaptureFixture[str]) -> None:
    clock = SteppingClock()
    progress = open_progress(ProgressMode.JSON, clock=clock)
    progress.note("resuming")
    with progress.phase("push") as phase:
        phase.set_total(4 * MIB)
        clock.sleep(1)
        phase.advance(MIB)
        clock.sleep(0.1)
        phase.advance(3 * MIB)
    note, first, last = documents(capsys.readouterr().err)
    assert note == {"schemaVersion": 1, "time": "2023-11-14T22:13:20.000000Z", "note": "resuming"}
    assert first == {
        "schemaVersion": 1,
        "time": "2023-11-14T22:13:21.000000Z",
        "phase": "push",
        "doneBytes": MIB,
        "totalBytes": 4 * MIB,
        "bytesPerSecond": MIB,
        "etaSeconds": 3.0,
        "finished": False,
    }
    assert (last["doneBytes"], last["finished"]) == (4 * MIB, True)


@pytest.mark.parametrize("mode", [ProgressMode.PLAIN, ProgressMode.JSON])
def test_a_failed_phase_is_not_told_as_done(mode: ProgressMode, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), open_progress(mode).phase("push", MIB):
        raise ValueError("broken")
    assert capsys.readouterr().err == ""


def test_bars_show_name_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    with open_progress(ProgressMode.TTY).phase("push") as phase:
        phase.set_total(2 * MIB)
        phase.resume_at(MIB)
        phase.advance(MIB)
    written = capsys.readouterr().err
    assert "push" in written
    assert "100%" in written
    assert "2.00M/2.00M" in written


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    progress = open_progress(ProgressMode.NONE)
    progress.note("nothing")
    with progress.phase("push", 1) as phase:
        phase.set_total(2)
        phase.resume_at(1)
        phase.advance(1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("stream", "is_ci", "has_bars"), [(Terminal(), False, True), (Terminal(), True, False), (io.StringIO(), False, False)]
)
def test_auto_draws_bars_only_where_somebody_looks(stream: io.StringIO, is_ci: bool, has_bars: bool) -> None:
    bars = type(open_progress(ProgressMode.TTY))
    assert isinstance(open_progress(ProgressMode.AUTO, stream=stream, is_ci=is_ci), bars) is has_bars
    assert isinstance(open_progress(ProgressMode.NONE), SilentProgress)


def test_threads_advance_one_phase(capsys: pytest.CaptureFixture[str]) -> None:
    with open_progress(ProgressMode.PLAIN, clock=SteppingClock()).phase("push", 8000) as phase:
        threads = [threading.Thread(target=lambda: [phase.advance(1) for _ in range(1000)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "7.8 KiB" in capsys.readouterr().err
