"""A cluster that lasts as long as a ``with`` block, and that the next command removes if this process is killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tests.cluster.cluster import Cluster
from tests.cluster.locks import locked
from tests.cluster.names import parse_run
from tests.cluster.remains import remove_cluster, remove_orphans
from tests.cluster.startup import start_cluster


@contextlib.contextmanager
def running_cluster(run_name: str) -> Iterator[Cluster]:
    """Start the cluster ``run_name`` and remove it at the end; what killed runs left is removed first."""
    remove_orphans()
    with locked(parse_run(run_name)):
        remove_cluster(run_name)
        try:
            yield start_cluster(run_name, owner=os.getpid())
        finally:
            remove_cluster(run_name)
