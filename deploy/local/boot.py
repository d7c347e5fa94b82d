"""The start of a local cluster, from an idle supervisor to a cluster that is ready."""

from __future__ import annotations

import os
import secrets
import subprocess
from typing import TYPE_CHECKING

import requests

from agent.cluster.connection import ConfigError
from deploy.kube.client import KubeClient
from deploy.kube.errors import ApiError
from deploy.kube.kinds import CONFIG_MAPS
from deploy.local import (
    audit,
    controlplane,
    identities,
    manifests,
    nodes,
    overlay,
    policies,
    posix,
    product,
    targets,
    users,
)
from deploy.local.layout import CHECKOUT, KUBE
from deploy.local.ports import LOOPBACK, free_ports
from deploy.local.real import daemon_set
from deploy.local.real import nodes as real_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from deploy.local.console import Console
    from deploy.local.layout import Layout
    from deploy.local.processes import Processes
    from deploy.local.product import AgentOptions
    from deploy.local.state import State

START_SECONDS = 60.0
# A node imports its images first.
KUBELET_SECONDS = 180.0


def add_node(
    layout: Layout,
    processes: Processes,
    api: KubeClient,
    options: AgentOptions,
    *,
    name: str,
    labels: Mapping[str, str] | None = None,
    real: bool = False,
) -> None:
    """Create a Node and its disk, and start its agent if the cluster runs agents.

    real: start its kubelet as well; `wait_for_kubelets` waits for it.
    """
    layout.disk(name).mkdir(parents=True, exist_ok=True)
    if real:
        machine = real_nodes.prepare(layout, name)
        real_nodes.register(api, name, labels, real_nodes.address(layout, name))
        processes.set(real_nodes.process_name(name), machine)
    else:
        nodes.register(api, name, labels)
    if not options.run:
        return
    if real and options.in_pods:
        endpoint = f"{real_nodes.address(layout, name)}:{daemon_set.HTTP_PORT}"
    else:
        agent = product.agent_name(name)
        identities.write(
            layout.user_kubeconfig(agent),
            api,
            users.AGENT,
            authority=layout.certificate,
            pod=agent,
            node=name,
        )
        (port,) = free_ports(1, targets.ports(layout.targets))
        processes.set(agent, product.agent(layout, name, options, port))
        endpoint = f"{LOOPBACK}:{port}"
    targets.add(layout.targets, targets.AGENT_JOB, endpoint, name)


def wait_for_kubelets(processes: Processes, api: KubeClient, names: Sequence[str]) -> None:
    """Wait until real nodes take pods."""
    processes.wait(
        "the kubelets",
        lambda: all(real_nodes.is_ready(api, name) for name in names),
        seconds=KUBELET_SECONDS,
        needs=[real_nodes.process_name(name) for name in names],
    )


class Boot:
    """Starts one cluster. A failure raises LocalError and leaves the started processes running."""

    def __init__(
        self, layout: Layout, processes: Processes, state: State, console: Console
    ) -> None:
        self.layout = layout
        self.processes = processes
        self.state = state
        self.console = console
        self._web = requests.Session()
        # Requests on loopback must not go through a proxy of the environment.
        self._web.trust_env = False

    def run(
        self,
        count: int,
        *,
        real: int = 0,
        default_storage_class: bool,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Start the cluster with `count` simulated nodes, and return when it is ready.

        real: how many real nodes it has beside them.
        before: is called when Kubernetes runs and no part of localmodel is installed.
        """
        self.state.save(self.layout.state)
        with self.console.step("control plane: etcd, API server"):
            api = self._start_control_plane()
        with self.console.step("CRDs, RBAC and controllers of localmodel"):
            if default_storage_class:
                api.apply(manifests.DEFAULT_STORAGE_CLASS, manager=manifests.MANAGER)
            self._apply_kinds(api, overlay.neighbour_files(CHECKOUT, self.state.overlay))
            if before is not None:
                self._start_controller_manager()
                before()
                self.processes.remove(controlplane.CONTROLLER_MANAGER)
            self._install(api)
        kind = self.state.metacontroller or "a stand-in in Python"
        simulated, machines = nodes.node_names(count), real_nodes.names(real)
        counted = f"{count} nodes" + (f", real nodes: {real}" if real else "")
        with self.console.step(f"controllers, hooks, {counted}; Metacontroller: {kind}"):
            self._start_controllers(api)
            names = [*simulated, *machines]
            if machines:
                self._prepare_for_kubelets(api)
            for name in names:
                add_node(
                    self.layout,
                    self.processes,
                    api,
                    self.state.agents,
                    name=name,
                    real=name in machines,
                )
            self._wait_for_controllers(api)
            wait_for_kubelets(self.processes, api, machines)
            if self.state.pod_policies:
                self._install_pod_policies(api)
            if self.state.agents.run:
                running = self.processes.names()
                self.processes.wait(
                    "the agents",
                    lambda: all((self.layout.disk(name) / "models").is_dir() for name in names),
                    # As pods, agents have a small share of busy CPUs.
                    seconds=KUBELET_SECONDS if machines else START_SECONDS,
                    needs=[name for name in map(product.agent_name, names) if name in running],
                )

    def _prepare_for_kubelets(self, api: KubeClient) -> None:
        agents = self.state.agents
        in_pods = agents.run and agents.in_pods
        real_nodes.write_images(self.layout, agent=in_pods)
        if in_pods:
            api.apply(
                daemon_set.read(CHECKOUT, agents, self.state.ports), manager=manifests.MANAGER
            )

    def _start_control_plane(self) -> KubeClient:
        layout, processes, ports = self.layout, self.processes, self.state.ports
        processes.set(controlplane.ETCD, controlplane.etcd(layout, ports))
        self._write_credentials()
        processes.wait(
            "etcd",
            lambda: self._answers(f"http://{LOOPBACK}:{ports.etcd}/health"),
            seconds=START_SECONDS,
            needs=[controlplane.ETCD],
        )
        api_server = controlplane.api_server(layout, ports, kubelets=self.state.real_nodes)
        processes.set(controlplane.API_SERVER, api_server)
        # The hooks start together with the API server, which they do not need.
        environment = overlay.hooks_environment(CHECKOUT, self.state.overlay)
        self.layout.metrics.mkdir(exist_ok=True)
        environment |= {"PROMETHEUS_MULTIPROC_DIR": str(self.layout.metrics)}
        processes.set(product.HOOKS, product.hooks(ports, environment))
        targets.add(layout.targets, targets.HOOKS_JOB, f"{LOOPBACK}:{ports.hooks}")
        processes.wait(
            "the API server",
            self._api_is_ready,
            seconds=START_SECONDS,
            needs=[controlplane.ETCD, controlplane.API_SERVER],
        )
        return KubeClient.connect(layout.kubeconfig)

    def _write_credentials(self) -> None:
        layout = self.layout
        keys = {"service-account-key": layout.service_account_key}
        if self.state.real_nodes:
            keys["kubelet-client"] = layout.kubelet_client
        for kind, file in keys.items():
            make = [str(KUBE), kind, str(file)]
            subprocess.run(make, check=True, env=posix.child_environment(os.environ))
        token = secrets.token_urlsafe(32)
        layout.tokens.write_text(users.token_file(token))
        layout.audit_policy.write_text(audit.policy())
        layout.kubeconfig.touch(mode=0o600)
        layout.kubeconfig.write_text(
            users.kubeconfig(
                server=controlplane.server_url(self.state.ports),
                authority=layout.certificate,
                user=users.ADMIN,
                token=token,
            )
        )

    def _install(self, api: KubeClient) -> None:
        url = product.hooks_url(self.state.ports)
        name = self.state.overlay
        self._apply_kinds(api, manifests.install_files(CHECKOUT))
        then = manifests.read(
            [*overlay.manifest_files(CHECKOUT, name), *manifests.controller_files(CHECKOUT)],
            hooks_url=url,
        )
        manifests.apply_all(api, then)
        if policies.are_among(then):
            self.processes.wait(
                "the admission policies",
                lambda: policies.in_force(api),
                seconds=START_SECONDS,
                needs=[controlplane.API_SERVER],
            )

    def _install_pod_policies(self, api: KubeClient) -> None:
        """Install deploy/pods, when controllers have made the ServiceAccount that pods need."""
        files = overlay.pod_policy_files(CHECKOUT)
        manifests.apply_all(api, manifests.read(files, hooks_url=""))
        self.processes.wait(
            "the policies for pods",
            lambda: policies.for_pods_in_force(api),
            seconds=START_SECONDS,
            needs=[controlplane.API_SERVER],
        )

    def _apply_kinds(self, api: KubeClient, files: Sequence[Path]) -> None:
        """Apply manifests that contain CRDs, and wait until the CRDs are served."""
        objects = manifests.read(files, hooks_url=product.hooks_url(self.state.ports))
        manifests.apply_all(api, objects)
        names = manifests.crd_names(objects)
        self.processes.wait(
            "the CRDs",
            lambda: manifests.established(api, names),
            seconds=START_SECONDS,
            needs=[controlplane.API_SERVER],
        )

    def _start_controllers(self, api: KubeClient) -> None:
        layout, processes, state = self.layout, self.processes, self.state
        # After the CRDs: the garbage collector finds a CRD of after its start 30 s late.
        self._start_controller_manager()
        if state.real_nodes:
            processes.set(controlplane.SCHEDULER, controlplane.scheduler(layout))
        identities.write(
            layout.user_kubeconfig(product.META),
            api,
            users.METACONTROLLER,
            authority=layout.certificate,
            pod=product.META,
        )
        meta = product.metacontroller(layout, state.ports, state.metacontroller)
        processes.set(product.META, meta)

    def _start_controller_manager(self) -> None:
        real = self.state.real_nodes
        manager = controlplane.controller_manager(self.layout, workloads=real)
        self.processes.set(controlplane.CONTROLLER_MANAGER, manager)

    def _wait_for_controllers(self, api: KubeClient) -> None:
        ports = self.state.ports
        self.processes.wait(
            "the hooks",
            lambda: self._answers(f"{product.hooks_url(ports)}/readyz"),
            seconds=START_SECONDS,
            needs=[product.HOOKS],
        )
        self.processes.wait(
            "the controller manager",
            lambda: _root_ca_is_published(api),
            seconds=START_SECONDS,
            needs=[controlplane.CONTROLLER_MANAGER],
        )
        self.processes.wait(
            "Metacontroller",
            self._metacontroller_is_ready,
            seconds=START_SECONDS,
            needs=[product.META],
        )

    def _answers(self, url: str) -> bool:
        try:
            return self._web.get(url, timeout=2).status_code == 200
        except requests.RequestException:
            return False

    def _api_is_ready(self) -> bool:
        if not self.layout.certificate.exists():
            return False
        try:
            KubeClient.connect(self.layout.kubeconfig).text("/readyz")
        except (ApiError, ConfigError):
            return False
        return True

    def _metacontroller_is_ready(self) -> bool:
        if self.state.metacontroller is None:
            return self.processes.pid(product.META) is not None
        return self._answers(f"http://{LOOPBACK}:{self.state.ports.metacontroller}/readyz")


def _root_ca_is_published(api: KubeClient) -> bool:
    try:
        return api.find(CONFIG_MAPS, "kube-root-ca.crt", "default") is not None
    except ApiError:
        return False
