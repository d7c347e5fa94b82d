"""A Kubernetes cluster on loopback with localmodel on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from deploy.kube.client import KubeClient
from deploy.local import build, identities, nodes, posix, product, targets
from deploy.local.boot import Boot, add_node, wait_for_kubelets
from deploy.local.console import Console, silent
from deploy.local.errors import LocalError, PortTakenError
from deploy.local.layout import CHECKOUT, KUBE, Layout
from deploy.local.overlay import STANDALONE, agents_environment
from deploy.local.overlay import check as check_overlay
from deploy.local.ports import choose_ports
from deploy.local.processes import Processes
from deploy.local.real import nodes as machines
from deploy.local.real import packages
from deploy.local.state import State
from deploy.local.users import AGENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from deploy.local.process import Process
    from deploy.local.product import MetacontrollerChoice, RealAgents

LOCK_SECONDS = 3.0
PORT_TRIES = 3


class Cluster:
    """One local cluster, in one folder. Several programs may use the same folder."""

    def __init__(self, root: Path, console: Console | None = None) -> None:
        self.layout = Layout(root.resolve())
        self.processes = Processes(self.layout)
        self.console = console or silent()
        self._api: KubeClient | None = None

    # Paths, API server, state.

    @property
    def root(self) -> Path:
        """The cluster's folder."""
        return self.layout.root

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of the administrator."""
        return self.layout.kubeconfig

    @property
    def nodes_dir(self) -> Path:
        """The folder with a folder for each node: the node's disk."""
        return self.layout.nodes

    @property
    def logs_dir(self) -> Path:
        """The folder with a log file for each process."""
        return self.layout.logs

    @property
    def api(self) -> KubeClient:
        """A client of the API server with the administrator's rights."""
        if self._api is None:
            self._api = KubeClient.connect(self.kubeconfig)
        return self._api

    @property
    def state(self) -> State:
        """Ports and options. Raises LocalError unless the cluster runs."""
        self._require_running()
        return State.load(self.layout.state)

    @property
    def hooks_url(self) -> str:
        """URL of the hooks."""
        return product.hooks_url(self.state.ports)

    def is_running(self) -> bool:
        """Whether the cluster runs."""
        return self.processes.running()

    def pid(self, name: str) -> int | None:
        """Id of a named process; None while the process does not run."""
        return self.processes.pid(name)

    def kubectl(
        self, *args: str, stdin: str | None = None, cwd: Path | None = None, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator."""
        return subprocess.run(
            [str(KUBE), "kubectl", f"--kubeconfig={self.kubeconfig}", *args],
            env=posix.child_environment(os.environ),
            input=stdin,
            cwd=cwd,
            capture_output=True,
            text=True,
            check=check,
        )

    # Start and stop of the cluster.

    def up(
        self,
        nodes: int = 3,
        *,
        real_nodes: int = 0,
        real_agents: RealAgents = "pods",
        metacontroller: MetacontrollerChoice = "auto",
        default_storage_class: bool = False,
        grace_seconds: float = 60.0,
        progress_seconds: float = 15.0,
        disk: str = product.DISK,
        agent_env: Mapping[str, str] | None = None,
        agent_pods_env: Mapping[str, str] | None = None,
        agent_args: Sequence[str] = (),
        overlay: str = STANDALONE,
        pod_policies: bool = False,
        run_agents: bool = True,
        before: Callable[[], None] | None = None,
        owner_pid: int | None = None,
    ) -> None:
        """Start the cluster on empty disks, and return when it is ready.

        real_nodes: how many nodes with a kubelet, which run pods, there are beside the simulated
        ones; needs root and packages. real_agents: how the agents of these run. agent_pods_env: the
        environment of those that run as pods, beside agent_env. disk: the size of each node's disk,
        a quantity. owner_pid: a process with which the cluster ends. overlay: a folder of
        deploy/overlays. pod_policies: install deploy/pods. run_agents: if False, other programs
        write the status of LocalModelNodes. before: is called when Kubernetes runs with the objects
        that the overlay expects, and before localmodel is installed. If a process does not start,
        all are stopped, and LocalError is raised.
        """
        check_overlay(CHECKOUT, overlay)
        program = product.choose_metacontroller(metacontroller, os.environ)
        agents = product.AgentOptions(
            grace_seconds,
            progress_seconds,
            tuple(agent_args),
            agents_environment(CHECKOUT, overlay) | dict(agent_env or {}),
            disk,
            run_agents,
            real_agents == "pods",
            dict(agent_pods_env or {}),
        )
        if real_nodes:
            packages.require(self.root)
        build.ensure_kube(self.console)
        with self._changing():
            self._prepare()
            for attempt in range(1, PORT_TRIES + 1):
                state = State(
                    choose_ports(), program, agents, overlay, real_nodes > 0, pod_policies
                )
                try:
                    self.processes.start_supervisor(owner_pid or os.getpid())
                    Boot(self.layout, self.processes, state, self.console).run(
                        nodes,
                        real=real_nodes,
                        default_storage_class=default_storage_class,
                        before=before,
                    )
                    if owner_pid is None:
                        self.layout.keep.touch()
                except PortTakenError:
                    self._stop_everything()
                    if attempt == PORT_TRIES:
                        raise
                    self._prepare()
                except BaseException:
                    with self.console.step("stopping the processes"):
                        self._stop_everything()
                    raise
                else:
                    return

    def down(self) -> bool:
        """Stop all processes and wait for their end. Returns whether any process ran.

        Logs and the nodes' disks stay.
        """
        if not self.layout.lock.exists():
            return False
        with self._changing():
            return self._stop_everything()

    def _stop_everything(self) -> bool:
        ran = self.processes.stop_supervisor()
        self._api = None
        self.kubeconfig.unlink(missing_ok=True)
        shutil.rmtree(self.layout.run, ignore_errors=True)
        shutil.rmtree(self.layout.etcd, ignore_errors=True)
        self.layout.targets.unlink(missing_ok=True)
        machines.clean(self.layout)
        return ran

    def _prepare(self) -> None:
        """Create the folders of a new cluster, and delete the folders of an old cluster."""
        layout = self.layout
        if self.is_running():
            raise LocalError(
                f"a cluster is running in {layout.root}",
                todo=f"use it (export KUBECONFIG={layout.kubeconfig}), stop it with 'make down', "
                "or start another one beside it with 'make up LOCAL=.local2'",
            )
        self._api = None
        machines.clean(layout)
        for folder in (layout.run, layout.etcd, layout.nodes, layout.logs):
            shutil.rmtree(folder, ignore_errors=True)
        layout.targets.unlink(missing_ok=True)
        for folder in (layout.processes, layout.stopped, layout.nodes, layout.logs):
            folder.mkdir(parents=True)
        layout.run.chmod(0o700)

    # Nodes and processes.

    def node_up(
        self, name: str, labels: Mapping[str, str] | None = None, *, real: bool = False
    ) -> None:
        """Create a Node, and start its agent. A disk of an earlier node of this name is kept.

        real: start its kubelet too, and return when the node takes pods. Raises LocalError if the
        Node exists.
        """
        nodes.check_name(name)
        with self._changing():
            state = self.state
            running = {product.agent_name(name), machines.process_name(name)}
            if running & set(self.processes.names()):
                raise LocalError(f"{name} is up", todo=f"make node-down NODE={name}")
            if real and not state.real_nodes:
                raise LocalError(
                    f"{self.root} has no scheduler for real nodes",
                    todo="make down, then make up REAL_NODES=1",
                )
            add_node(
                self.layout,
                self.processes,
                self.api,
                state.agents,
                name=name,
                labels=labels,
                real=real,
            )
            if real:
                wait_for_kubelets(self.processes, self.api, [name])

    def node_down(self, name: str) -> None:
        """Stop a node's agent and delete its Node. Its disk stays."""
        nodes.check_name(name)
        with self._changing():
            self._require_running()
            mine = [product.agent_name(name), machines.process_name(name)]
            known = set(mine) & set(self.processes.names())
            for process in mine:
                self.processes.remove(process)
            machines.clean(self.layout, name)
            targets.remove(self.layout.targets, name)
            identities.remove(self.api, AGENT, product.agent_name(name))
            if not nodes.unregister(self.api, name) and not known:
                raise LocalError(f"there is no node {name}", todo="see: make status")

    def run(self, name: str, process: Process) -> None:
        """Keep a named process running with the cluster; it replaces a process of that name."""
        self.processes.set(name, process)

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Send a signal to a process, which the supervisor restarts. Returns its old id."""
        return self.processes.kill(name, number)

    def wait_for_pid(self, name: str, *, after: int | None = None, seconds: float = 15.0) -> int:
        """Wait until a process runs with another id than `after`. Returns its id."""
        return self.processes.wait_for_pid(name, after=after, seconds=seconds)

    def stop(self, name: str) -> None:
        """Stop a process until `start`, and wait for its end."""
        self.processes.stop(name)

    def start(self, name: str) -> None:
        """Start a stopped process again, with the same ports."""
        self.processes.start(name)

    # Preconditions.

    def _require_running(self) -> None:
        if not self.is_running() or not self.layout.state.exists():
            raise LocalError(f"no cluster runs in {self.layout.root}", todo="make up")

    def _changing(self) -> AbstractContextManager[None]:
        """Lock the folder, so that two commands cannot change the cluster at the same time."""
        layout = self.layout
        strangers = layout.root.exists() and any(layout.root.iterdir())
        if strangers and not layout.lock.exists():
            raise LocalError(
                f"{layout.root} holds files that are not a local cluster's",
                todo="name a new folder, as in LOCAL=.local2, or empty this one",
            )
        layout.root.mkdir(parents=True, exist_ok=True)
        busy = LocalError(
            f"another command is changing the cluster in {layout.root}",
            todo="wait for it, or end it with Ctrl-C",
        )
        return posix.locked(layout.lock, seconds=LOCK_SECONDS, error=busy)
