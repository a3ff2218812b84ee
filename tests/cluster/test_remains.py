"""A cluster goes without a trace: after an ordinary end, after kill -9 of its parts, of the command that made it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from imagekit.base.process import daemon
from tests.cluster import container_runtime
from tests.cluster.cluster import Cluster
from tests.cluster.locks import locked
from tests.cluster.remains import remove_cluster, remove_orphans
from tests.cluster.running import running_cluster
from tests.cluster.startup import start_cluster
from tests.cluster.traces import traces
from tests.rules.sources import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_RUN = f"gone-{os.getpid()}"


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    """Each test starts and ends on a machine without a trace of its cluster; it is removed also when the test fails."""
    assert not traces(_RUN).told()
    yield
    left = traces(_RUN).told()
    remove_cluster(_RUN)
    assert not left


def test_cluster_comes_and_goes_twice() -> None:
    for _ in range(2):
        with running_cluster(_RUN) as cluster:
            assert not cluster.ended_parts()
            seen = traces(_RUN)
            assert all([seen.processes, seen.links, seen.routes, seen.devices, seen.groups, seen.files])
        assert not traces(_RUN).told()


def test_killed_parts_leave_nothing() -> None:
    with running_cluster(_RUN) as cluster:
        cluster.control.kill_part("etcd")
        cluster.machines["node1"].kill_part("kubelet")
        cluster.machines["node1"].kill_part("containerd")
        os.kill(cluster.machines["node2"].init_pid, signal.SIGKILL)
        ended = {"control/etcd", "node1/kubelet", "node1/containerd", "node2/kubelet", "node2/containerd"}
        _await(lambda: ended <= set(cluster.ended_parts()))
    assert not traces(_RUN).told()


def test_killed_part_starts_again() -> None:
    with running_cluster(_RUN) as cluster:
        node = cluster.machines["node1"]
        for part in ("containerd", "kubelet"):
            node.kill_part(part)
            node.restart_part(part)
            _await(partial(container_runtime.is_ready, node))
        _await(lambda: not cluster.ended_parts())
    assert not traces(_RUN).told()


def test_killed_command_is_cleaned_up_by_the_next(tmp_path: Path) -> None:
    """Whatever the command was doing when it was killed, the next one finds it and removes it."""
    script = f"from tests.cluster.running import running_cluster\nwith running_cluster({_RUN!r}): pass"
    for part in ("control/etcd", "node2/containerd"):
        command = [sys.executable, "-c", script]
        with daemon(command, purpose="start a cluster", log_path=tmp_path / "log", environment=_environment()) as starting:
            _await(lambda: _runs(part) or not starting.is_running())  # noqa: B023 - awaited within the loop
            assert starting.is_running(), starting.log_tail()
            os.killpg(starting.pid, signal.SIGKILL)
        assert _RUN in remove_orphans()
        assert not traces(_RUN).told()


def test_failed_start_names_the_part_and_shows_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    from imagekit.base.errors import ToolError
    from tests.cluster import control_plane

    broken = control_plane.scheduler
    monkeypatch.setattr(control_plane, "scheduler", lambda *given: [*broken(*given), "--no-such-flag"])
    with locked(_RUN):
        with pytest.raises(ToolError, match=r"(?s)control/kube-scheduler ended.*unknown flag: --no-such-flag"):
            start_cluster(_RUN)
        remove_cluster(_RUN)
    assert not traces(_RUN).told()


def test_command_waits_for_no_other() -> None:
    from imagekit.base.errors import UsageError

    with locked(_RUN), pytest.raises(UsageError, match="another command uses"), locked(_RUN):
        pass
    assert not traces(_RUN).told()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}


def _runs(part: str) -> bool:
    from imagekit.base.errors import UsageError

    machine, name = part.split("/")
    try:
        return Cluster.load(_RUN).machines[machine].process_of(name) is not None
    except UsageError:
        return False


def _await(is_done: object) -> None:
    assert callable(is_done)
    deadline = time.monotonic() + 60
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(0.02)
