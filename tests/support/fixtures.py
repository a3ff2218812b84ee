"""Fixtures that several packages' tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.prerequisites import require_program, require_root
from tests.support.services import RunningDocker, RunningRegistry, running_docker, running_registry


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    """A real registry on loopback; the test needs the marks ``process`` and ``network``."""
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def docker_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDocker]:
    """A docker daemon; the test needs the mark ``docker``."""
    require_root()
    for program in ("dockerd", "docker", "containerd", "runc"):
        require_program(program)
    with running_docker(tmp_path_factory.mktemp("docker")) as running:
        yield running
