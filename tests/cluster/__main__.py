"""``./dev cluster``: a two-node Kubernetes cluster on this machine."""

from __future__ import annotations

import time

import click

from imagekit.base.command import run_command
from imagekit.base.errors import UsageError
from imagekit.base.units import MIB
from tests.cluster.binaries import built_programs
from tests.cluster.cluster import Cluster
from tests.cluster.locks import locked
from tests.cluster.names import DEFAULT_RUN, parse_run
from tests.cluster.remains import remove_cluster, remove_orphans
from tests.cluster.startup import say, start_cluster

_run_option = click.option(
    "--run",
    "run_name",
    default=DEFAULT_RUN,
    show_default=True,
    metavar="NAME",
    help="Which cluster; several can stand beside each other.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run a two-node Kubernetes cluster on this machine. Example: ./dev cluster up"""


@main.command()
@_run_option
def up(run_name: str) -> None:
    """Start the cluster; one that runs already is left alone, and the remains of a broken one are removed first.

    \b
    Example:
      eval "$(./dev cluster up)" && kubectl get nodes
    """
    _sweep()
    with locked(parse_run(run_name)):
        started = time.monotonic()
        if _is_whole(run_name):
            say("the cluster runs already")
        else:
            if remove_cluster(run_name):
                say("removed what was left of an earlier cluster")
            _start_or_remove(run_name)
            say(f"the cluster is up after {time.monotonic() - started:.0f} s")
        click.echo(_settings(Cluster.load(run_name)))


@main.command()
def build() -> None:
    """Build the cluster's programs, as far as the cache lacks them; needs no root."""
    built_programs()


@main.command()
@_run_option
def down(run_name: str) -> None:
    """End the cluster and remove everything of it, also after a crash."""
    _sweep()
    with locked(parse_run(run_name)):
        say("the cluster is removed" if remove_cluster(run_name) else "there is no cluster")


@main.command()
@_run_option
def status(run_name: str) -> None:
    """Say which parts run; the exit code is not 0 when one does not."""
    cluster = Cluster.load(parse_run(run_name))
    for machine, part in cluster.parts():
        pid = machine.process_of(part)
        click.echo(f"{machine.name + '/' + part:35} {f'runs, pid {pid}' if pid else 'does not run'}")
    click.echo(f"memory: {cluster.memory_bytes() // MIB} MiB; registry: {cluster.names.registry}")
    click.echo(_settings(cluster))
    if ended := cluster.ended_parts():
        raise UsageError(f"these parts do not run: {', '.join(ended)}", hint="`./dev cluster up` makes a new cluster")


@main.command()
@_run_option
@click.option("--lines", default=50, show_default=True, help="How many of the last lines.")
@click.argument("part")
def logs(run_name: str, part: str, lines: int) -> None:
    """Print the end of PART's log: kubelet, node2/containerd, kube-apiserver, audit, …"""
    cluster = Cluster.load(parse_run(run_name))
    known = [*cluster.parts(), (cluster.control, "audit")]
    wanted = [(machine, name) for machine, name in known if part in (name, machine.name, f"{machine.name}/{name}")]
    if not wanted:
        parts = ", ".join(f"{machine.name}/{name}" for machine, name in known)
        raise UsageError(f"there is no part {part!r}", hint=f"one of {parts}")
    for machine, name in wanted:
        click.echo(f"== {machine.name}/{name}\n{machine.log_tail(name, lines=lines)}")


def _settings(cluster: Cluster) -> str:
    """Return what a shell needs to use the cluster: kubectl is among its programs."""
    return f'export KUBECONFIG={cluster.names.kubeconfig} PATH="$PATH:{cluster.names.binaries}"'


def _sweep() -> None:
    for name in remove_orphans():
        say(f"removed the cluster {name!r} of a test run that was killed")


def _is_whole(run_name: str) -> bool:
    try:
        return not Cluster.load(run_name).ended_parts()
    except UsageError:
        return False


def _start_or_remove(run_name: str) -> None:
    try:
        start_cluster(run_name)
    except BaseException:  # an interrupt, too
        remove_cluster(run_name)
        raise


if __name__ == "__main__":
    run_command(main, name="./dev cluster")
