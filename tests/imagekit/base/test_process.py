"""The process gate: what a program may use, what its endings become, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from imagekit.base.errors import DeadlineError, ToolError
from imagekit.base.process import ProcessLimits, daemon, find_program, run
from imagekit.base.units import MIB
from tests.rules.sources import ROOT

pytestmark = pytest.mark.process
LIMITS = ProcessLimits(timeout_seconds=20)
_GONE_SECONDS = 10.0


def shell(script: str, limits: ProcessLimits = LIMITS, **options: object) -> bytes:
    return run(["sh", "-c", script], purpose="test", limits=limits, **options).stdout  # type: ignore[arg-type] # passed on as they are


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_gone(pid: int) -> None:
    """Wait for the kernel to finish with a process that got SIGKILL."""
    deadline = time.monotonic() + _GONE_SECONDS
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        os.sched_yield()


def test_output_and_exit_code_come_back() -> None:
    ended = run(["sh", "-c", "echo out; echo err >&2; exit 3"], purpose="test", limits=LIMITS, accepted_exit_codes=frozenset({3}))
    assert (ended.exit_code, ended.stdout, ended.stderr) == (3, b"out\n", b"err\n")


def test_failure_tells_purpose_command_and_last_words() -> None:
    with pytest.raises(ToolError) as caught:
        run(["sh", "-c", "echo 'no luck' >&2; exit 7", "a b"], purpose="try my luck", limits=LIMITS, hint="try again")
    error = caught.value
    assert error.reason == "ToolFailed"
    assert error.hint == "try again"
    assert "cannot try my luck: sh ended with exit code 7" in error.message
    assert "'a b'" in error.message, "the command can be pasted into a shell"
    assert error.message.endswith("no luck")
    assert error.said == "no luck"


def test_only_the_end_of_standard_error_is_kept() -> None:
    with pytest.raises(ToolError) as caught:
        shell("seq 100000 >&2; exit 1", ProcessLimits(timeout_seconds=20, output_bytes=1000))
    assert caught.value.message.endswith("100000")
    assert len(caught.value.message) < 500


def test_death_by_signal_is_told_apart() -> None:
    with pytest.raises(ToolError, match="ended by SIGABRT") as caught:
        shell("kill -ABRT $$")
    assert caught.value.reason == "ToolCrashed"


def test_signal_without_a_name_is_told() -> None:
    with pytest.raises(ToolError, match="ended by signal 40"):
        shell("kill -40 $$")


def test_missing_program_is_told_with_a_hint() -> None:
    with pytest.raises(ToolError) as caught:
        run(["no-such-program"], purpose="test", limits=LIMITS)
    assert caught.value.reason == "ToolMissing"
    assert "doctor" in caught.value.hint


def test_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    printed = shell("env", environment={"EXTRA": "yes"}).decode()
    assert "hunter2" not in printed
    assert "EXTRA=yes" in printed
    assert "LC_ALL=C.UTF-8" in printed


def test_standard_input_is_empty() -> None:
    assert shell("cat; echo end") == b"end\n"


def test_too_much_output_is_an_error_and_bounded() -> None:
    with pytest.raises(ToolError, match="printed more than 1000 bytes"):
        shell("yes", ProcessLimits(timeout_seconds=20, output_bytes=1000))


def test_streamed_output_is_not_bounded_nor_kept() -> None:
    seen: list[int] = []
    assert shell("head -c 300000 /dev/zero", on_output=lambda chunk: seen.append(len(chunk))) == b""
    assert sum(seen) == 300_000


def test_a_timeout_may_be_longer_than_one_wait_of_the_kernel() -> None:
    century_seconds = 3.2e9
    assert shell("echo done", ProcessLimits(timeout_seconds=century_seconds, stall_seconds=century_seconds)) == b"done\n"


def test_timeout_ends_the_program() -> None:
    with pytest.raises(DeadlineError, match=r"cannot test: sh did not end in 0\.2 s"):
        shell("sleep 100", ProcessLimits(timeout_seconds=0.2))


def test_timeout_holds_when_the_output_is_closed() -> None:
    with pytest.raises(DeadlineError, match="did not end"):
        shell("exec >&- 2>&-; sleep 100", ProcessLimits(timeout_seconds=0.2))


def test_silence_is_a_stall_and_output_is_not() -> None:
    limits = ProcessLimits(timeout_seconds=20, stall_seconds=0.5)
    with pytest.raises(DeadlineError, match="no progress"):
        shell("echo begun; sleep 100", limits)
    assert shell("for i in 1 2 3 4; do echo $i; sleep 0.2; done", limits) == b"1\n2\n3\n4\n"


@pytest.mark.parametrize("ending", ["sleep 100", "exit 0", "exit 1"])
def test_children_of_the_program_are_ended_too(ending: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"(trap '' TERM; exec sleep 100) & echo $! > {pid_file}; {ending}"
    started = time.monotonic()
    if ending == "exit 0":
        shell(script)
    else:
        with pytest.raises((DeadlineError, ToolError)):
            shell(script, ProcessLimits(timeout_seconds=1 if "sleep" in ending else 20))
    assert time.monotonic() - started < 15, "nobody waited for the child to close the pipes"
    assert_gone(int(pid_file.read_text()))


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(DeadlineError):
        shell(f"trap '' TERM; echo $$ > {pid_file}; while :; do sleep 100; done", ProcessLimits(timeout_seconds=0.5))
    assert_gone(int(pid_file.read_text()))


def test_an_error_while_reading_ends_the_program(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def interrupt(_chunk: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shell(f"echo $$ > {pid_file}; echo now; sleep 100", on_output=interrupt)
    assert_gone(int(pid_file.read_text()))


def test_ctrl_c_ends_the_program(tmp_path: Path) -> None:
    """The program has a session of its own, so that only we get SIGINT; and it ends with us all the same."""
    script = (
        "from imagekit.base.process import *\n"
        "def told(chunk): print(chunk.decode(), end='', flush=True)\n"
        "run(['sh', '-c', 'echo $$; sleep 100'], purpose='wait', limits=ProcessLimits(timeout_seconds=60), on_output=told)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert_gone(pid)


def test_kill_of_this_process_ends_the_program() -> None:
    script = (
        "from imagekit.base.process import *\n"
        "def told(chunk): print(chunk.decode(), end='', flush=True)\n"
        "run(['sh', '-c', 'echo $$; exec sleep 100'], purpose='wait', limits=ProcessLimits(timeout_seconds=60), on_output=told)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
        process.wait(20)
    assert_gone(pid)


def test_memory_limit_holds() -> None:
    limits = ProcessLimits(timeout_seconds=60, address_space_bytes=256 * MIB)
    with pytest.raises(ToolError, match="MemoryError"):
        run(["python3", "-c", "bytearray(512 * 1024 * 1024)"], purpose="allocate", limits=limits)


def test_processor_limit_holds() -> None:
    with pytest.raises(ToolError, match=r"SIGXCPU|SIGKILL"):
        shell("while :; do :; done", ProcessLimits(timeout_seconds=60, cpu_seconds=1))


def test_file_size_limit_holds(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with pytest.raises(ToolError):
        shell(f"exec head -c 1000000 /dev/zero > {target}", ProcessLimits(timeout_seconds=20, file_size_bytes=4096))
    assert target.stat().st_size == 4096


def test_descriptors_are_passed_only_when_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        os.set_inheritable(file.fileno(), True)
        script = f"cat /proc/self/fd/{file.fileno()}"
        assert shell(script, pass_fds=(file.fileno(),)) == b"content"
        with pytest.raises(ToolError):
            shell(script)


def test_runs_from_several_threads_at_once() -> None:
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda number=number: answers.append(shell(f"echo {number}"))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [b"%d\n" % number for number in range(8)]


def test_daemon_runs_while_its_context_lasts(tmp_path: Path) -> None:
    argv = ["sh", "-c", "echo listening; (trap '' TERM; exec sleep 100) & echo $!; wait"]
    with daemon(argv, purpose="listen", log_path=tmp_path / "log", grace_seconds=5) as service:
        deadline = time.monotonic() + 20
        while service.log_tail().count("\n") < 1:
            assert time.monotonic() < deadline
            os.sched_yield()
        assert service.is_running()
        child = int(service.log_tail().splitlines()[1])
    assert not service.is_running()
    assert_gone(child)


def test_daemon_that_ended_by_itself_is_seen(tmp_path: Path) -> None:
    with daemon(["sh", "-c", "echo broken >&2; exit 3"], purpose="listen", log_path=tmp_path / "log") as service:
        service.process.wait(20)
        assert not service.is_running()
        assert service.log_tail() == "broken"


def test_log_tail_of_a_large_log_is_bounded(tmp_path: Path) -> None:
    with daemon(["sh", "-c", "seq 200000"], purpose="count", log_path=tmp_path / "log") as service:
        service.process.wait(60)
        assert service.log_tail().splitlines()[-1] == "200000"
        assert len(service.log_tail()) < 1000


def test_programs_are_found_in_the_systems_directories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.write_text("#!/bin/sh\n")
    planted.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_program("planted") is None
    assert find_program("sh") is not None
