"""The cluster's network: a bridge on the control machine, a cable to each node and one to the host.

Only that last cable's end is seen outside; it goes when the control machine goes. There is no address translation:
the host and the control machine have a route to each node's pods, and one to the services by way of the first node.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network

from imagekit.base.errors import ToolError
from imagekit.base.process import ProcessLimits, run
from tests.cluster.machine import Machine
from tests.cluster.names import FIRST_SUBNET, LAST_SUBNET, NODES, link_name

_BRIDGE = "cluster0"
_LIMITS = ProcessLimits(timeout_seconds=30)


def free_subnet(taken: set[int], *, preferred: int) -> int:
    """Return the second byte of a 10.x.0.0/16 that neither a cluster nor a route of this machine uses."""
    routes = run(["ip", "-json", "-4", "route", "show", "table", "all"], purpose="list routes", limits=_LIMITS).stdout
    used = [IPv4Network(route["dst"]) for route in json.loads(routes) if route["dst"][0].isdigit()]
    count = LAST_SUBNET - FIRST_SUBNET + 1
    for step in range(count):
        subnet = FIRST_SUBNET + (preferred + step) % count
        if subnet not in taken and not any(route.overlaps(IPv4Network(f"10.{subnet}.0.0/16")) for route in used):
            return subnet
    raise ToolError("every subnet from 10.64.0.0/16 to 10.127.0.0/16 is in use: end a cluster that is not needed")


def connect_control(control: Machine) -> None:
    """Make the bridge, and the cable between it and the host."""
    names, link = control.names, link_name(control.names.run)
    _ip(control, f"link add {_BRIDGE} type bridge forward_delay 0")
    _ip(control, f"addr add {names.control_address}/{names.machines.prefixlen} dev {_BRIDGE}")
    _ip(control, f"link set {_BRIDGE} up")
    _host_ip(f"link add {link} type veth peer name host netns {control.init_pid}")
    _ip(control, f"link set host master {_BRIDGE} up")
    _host_ip(f"addr add {names.host_address}/{names.machines.prefixlen} dev {link}")
    _host_ip(f"link set {link} up")


def connect_node(node: Machine, control: Machine) -> None:
    """Lay the cable between a node and the bridge, and the routes to its pods."""
    names = node.names
    address, pods = names.node_address(node.name), names.node_pods(node.name)
    _host_ip(f"link add eth0 netns {node.init_pid} type veth peer name {node.name} netns {control.init_pid}")
    _ip(control, f"link set {node.name} master {_BRIDGE} up")
    _ip(node, f"addr add {address}/{names.machines.prefixlen} dev eth0")
    _ip(node, "link set eth0 up")
    _ip(node, f"route add default via {names.control_address}")
    node.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"], purpose="let it forward packets")
    for other in NODES:
        if other != node.name:
            _ip(node, f"route add {names.node_pods(other)} via {names.node_address(other)}")
    _ip(control, f"route add {pods} via {address}")
    _host_ip(f"route add {pods} via {address}")
    if node.name == NODES[0]:
        _ip(control, f"route add {names.services} via {address}")
        _host_ip(f"route add {names.services} via {address}")


def remove_host_link(run_name: str) -> None:
    """Remove the host's end of the cable; its routes go with it. The kernel may be at it: its namespaces end in their own time."""
    command = ["ip", "link", "delete", link_name(run_name)]
    run(command, purpose="remove the cluster's link", limits=_LIMITS, accepted_exit_codes=frozenset({0, 1}))
    listed = json.loads(run(["ip", "-json", "link", "show"], purpose="list links", limits=_LIMITS).stdout)
    if link_name(run_name) in (entry["ifname"] for entry in listed):
        raise ToolError(f"the link {link_name(run_name)} cannot be removed")


def _ip(machine: Machine, arguments: str) -> None:
    machine.run(["ip", *arguments.split()], purpose="set up its network")


def _host_ip(arguments: str) -> None:
    run(["ip", *arguments.split()], purpose="set up the cluster's network", limits=_LIMITS)
