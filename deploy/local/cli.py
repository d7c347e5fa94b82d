"""The local cluster's command line."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from crds.quantity import parse_quantity
from crds.version import __version__
from deploy.kube.errors import ApiError
from deploy.kube.kinds import NODES
from deploy.local import build, prometheus
from deploy.local.cluster import Cluster
from deploy.local.console import Console
from deploy.local.errors import LocalError
from deploy.local.layout import KUBECTL
from deploy.local.overlay import BASE, STANDALONE
from deploy.local.product import DISK, META
from deploy.local.real import nodes as machines
from deploy.local.real.images import BUSYBOX
from deploy.monitoring.rules import rule_groups

DEFAULT_LOCAL = Path(".local")
_PARTS_HELP = f"{', '.join(build.PARTS)} (default: all of them)"


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="python -m deploy.local",
        description="A Kubernetes cluster on loopback with localmodel on it.",
    )
    top.add_argument("--version", action="version", version=f"localmodel {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    make = commands.add_parser("build", help="build and install what the cluster and the tests run")
    make.add_argument("parts", nargs="*", metavar="PART", help=_PARTS_HELP)
    commands.add_parser("demo", help="show what localmodel does, and check it", add_help=False)
    up = commands.add_parser("up", help="start a cluster, and return when it is ready")
    up.add_argument("--nodes", default="3", help="how many nodes (default: 3)")
    up.add_argument(
        "--real-nodes",
        default="0",
        help="how many nodes with kubelet and containerd, as root on Linux (default: 0)",
    )
    up.add_argument(
        "--real-agents",
        choices=["pods", "processes"],
        default="pods",
        help="how the agents of real nodes run: as pods of the DaemonSet, from an image of this "
        "checkout, or as processes, like those of simulated nodes (default: pods)",
    )
    up.add_argument(
        "--metacontroller",
        choices=["auto", "standin", "real"],
        default="auto",
        help="auto uses a metacontroller program if there is one (default: auto)",
    )
    up.add_argument(
        "--default-storage-class", action="store_true", help="create a default StorageClass"
    )
    up.add_argument(
        "--grace-seconds",
        type=float,
        default=60.0,
        help="how long an agent keeps a copy that no entry requests (default: 60)",
    )
    up.add_argument(
        "--disk",
        default=DISK,
        help=f"how large the disk of each node is (default: {DISK})",
    )
    up.add_argument(
        "--overlay",
        default=STANDALONE,
        help=f"folder of deploy/overlays, or {BASE}: without the admission policies "
        "(default: %(default)s)",
    )
    up.add_argument(
        "--no-pod-policies",
        action="store_true",
        help="without the policies of deploy/pods: pods name the claims of models",
    )
    up.add_argument(
        "--no-agents",
        action="store_true",
        help="run no agents: other programs write the status of LocalModelNodes",
    )
    down = commands.add_parser("down", help="stop a cluster and everything in it")
    add = commands.add_parser("node-up", help="add a node")
    add.add_argument("--real", action="store_true", help="a node with kubelet and containerd")
    remove = commands.add_parser("node-down", help="delete a node and stop its agent")
    for command in (add, remove):
        command.add_argument("node", help="its name, as in node-4")
    status = commands.add_parser("status", help="show what runs")
    watch = commands.add_parser("prometheus", help="start Prometheus beside a cluster")
    for command in (up, down, add, remove, status, watch):
        command.add_argument(
            "--local",
            type=Path,
            default=Path(os.environ.get("LOCAL") or DEFAULT_LOCAL),
            help="folder of the cluster (default: .local)",
        )
    return top


def main(arguments: list[str]) -> int:
    """Run one command."""
    if arguments[:1] == ["demo"]:
        demo = importlib.import_module("deploy.local.demo")
        return int(demo.main(arguments[1:]))
    options = parser().parse_args(arguments)
    console = Console(sys.stdout)
    try:
        _run(options, console)
    except LocalError as error:
        print(error.text(), file=sys.stderr)
        return 1
    except ApiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace, console: Console) -> None:
    if options.command == "build":
        build.ensure(options.parts or build.PARTS, console)
        return
    cluster = Cluster(options.local, console)
    if options.command == "up":
        _up(cluster, options, console)
    elif options.command == "down":
        with console.step(f"stopping the cluster in {options.local}"):
            ran = cluster.down()
        if not ran:
            console.line("nothing was running")
    elif options.command == "node-up":
        cluster.node_up(options.node, real=options.real)
        console.line(f"{options.node} is up; its disk is {cluster.layout.disk(options.node)}")
    elif options.command == "node-down":
        cluster.node_down(options.node)
        console.line(f"{options.node} is gone; its disk stays")
    elif options.command == "prometheus":
        _prometheus(cluster, console)
    else:
        _status(cluster, console)


def _up(cluster: Cluster, options: argparse.Namespace, console: Console) -> None:
    for count, todo in ((options.nodes, "NODES=3"), (options.real_nodes, "REAL_NODES=2")):
        if not count.isdecimal():
            raise LocalError(f"{count!r} is not a number of nodes", todo=f"make up {todo}")
    try:
        parse_quantity(options.disk)
    except ValueError as error:
        raise LocalError(str(error), todo="make up DISK=20Gi") from None
    build.ensure_kube(console)
    started = time.monotonic()
    cluster.up(
        int(options.nodes),
        real_nodes=int(options.real_nodes),
        real_agents=options.real_agents,
        metacontroller=options.metacontroller,
        default_storage_class=options.default_storage_class,
        grace_seconds=options.grace_seconds,
        disk=options.disk,
        overlay=options.overlay,
        pod_policies=not options.no_pod_policies,
        run_agents=not options.no_agents,
    )
    console.line(f"the cluster is up after {time.monotonic() - started:.1f} s")
    console.line()
    console.line(f"  export KUBECONFIG={cluster.kubeconfig}")
    console.line(f"  kubectl get nodes        (there is a kubectl at {KUBECTL})")
    console.line(f"  disks: {cluster.nodes_dir}   logs: {cluster.logs_dir}")
    if int(options.real_nodes):
        console.line(
            f"  pods run on {', '.join(machines.names(int(options.real_nodes)))}; for example:"
        )
        console.line(
            f"  kubectl run test --image={BUSYBOX} --image-pull-policy=Never -- sleep 9999"
        )
    beside = "" if options.local == DEFAULT_LOCAL else f" LOCAL={options.local}"
    console.line(f"  stop it with: make down{beside}")


def _prometheus(cluster: Cluster, console: Console) -> None:
    server = prometheus.Prometheus()
    server.start(cluster, rule_groups())
    console.line(f"Prometheus is at {server.url}; it ends with the cluster")


def _status(cluster: Cluster, console: Console) -> None:
    state = cluster.state
    console.line(f"kubeconfig      {cluster.kubeconfig}")
    console.line(f"Metacontroller  {state.metacontroller or 'the stand-in'}")
    console.line(f"hooks           {cluster.hooks_url}")
    console.line()
    console.line(f"{'PROCESS':<28}{'PID':>8}  DEATHS")
    for name in cluster.processes.names():
        ended = cluster.processes.ended(name)
        deaths = f"{ended.count} (last: {ended.how})" if ended else "0"
        shown = "the stand-in for it" if name == META and not state.metacontroller else ""
        console.line(f"{name:<28}{cluster.pid(name) or '-':>8}  {deaths}  {shown}".rstrip())
    console.line()
    names = [node["metadata"]["name"] for node in cluster.api.list(NODES)]
    console.line(f"nodes: {', '.join(names) or 'none'}")
