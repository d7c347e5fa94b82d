"""A cluster on which every right of localmodel is needed, and what makes localmodel need it."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from agent.cluster.startup_taint import KEYS
from agent.structs.credentials import DEFAULT_NAMESPACE
from crds.keys import model_key
from deploy.kube.errors import NotFoundError
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    GROUPS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    NAMESPACES,
    NODES,
    PLACEMENTS,
    PODS,
    SECRETS,
    VOLUMES,
)
from deploy.local import manifests, nodes, overlay, product
from deploy.local.cluster import Cluster
from deploy.local.layout import CHECKOUT
from deploy.local.origin import S3Origin
from deploy.local.ports import free_ports
from tests.e2e import rights
from tests.e2e.origin import HttpOrigin
from tests.e2e.world import World, an_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deploy.local.process import Process
    from deploy.local.product import MetacontrollerChoice

NODE = "node-1"
AGENT = product.agent_name(NODE)
COMPONENTS = (
    "deploy/components/startup-taint/policy.yaml",
    rights.TAINT,
    rights.CONFIGZ,
    rights.TOKEN,
)
TOKEN_CONTROLLERS = "deploy/components/hooks-token/controllers"
# Bytes: long enough in coming for an Event that says how far the download is.
SLOW_BYTES = 1 << 18
BYTES_PER_SECOND = 1 << 17
# How long the origin takes to answer: the agent has seen the pod before it knows the model's size,
# and changes the pod's Event when it does.
ANSWER_SECONDS = 3.0
# A set of objects that stays, and one that ends.
KEPT, ENDING = "kept", "ending"
# A group of Nodes without agents.
BARE = "bare"


@dataclass
class Scene:
    """The cluster. rounds: how often `poke` has run. fresh: the Nodes with a startup taint."""

    world: World
    rounds: int = 0
    fresh: list[str] = field(default_factory=list)

    @property
    def cluster(self) -> Cluster:
        """The local cluster."""
        return self.world.cluster

    def restart_metacontroller(self) -> None:
        """Let Metacontroller read everything again, by lists: client-go reads by watches if it can.

        API servers that cannot send a list by a watch need the right to list.
        """
        state = self.cluster.state
        process = product.metacontroller(self.cluster.layout, state.ports, state.metacontroller)
        env = {"KUBE_FEATURE_WatchListClient": "false", "ROUND": str(self.rounds)}
        self.run(product.META, replace(process, env=env, stop_seconds=0.1))

    def restart_agent(self) -> None:
        """Let the agent of NODE read everything again."""
        (port,) = free_ports(1)
        process = product.agent(self.cluster.layout, NODE, self.cluster.state.agents, port)
        env = process.env | {"ROUND": str(self.rounds)}
        self.run(AGENT, replace(process, env=env, stop_seconds=0.1))

    def run(self, name: str, process: Process) -> None:
        """Run a process in the place of the one that has this name, and wait for it."""
        before = self.cluster.pid(name)
        self.cluster.run(name, process)
        self.cluster.wait_for_pid(name, after=before)

    def begin(self, name: str) -> None:
        """A group, caches with claims in a namespace, and a Node without an agent."""
        world = self.world
        world.node(NODE, name)
        nodes.register(world.api, f"bare-{name}", {BARE: "yes"})
        world.namespace(name, **{name: "yes"})
        world.group(name)
        selector = {"matchLabels": {name: "yes"}}
        uri = world.http.put(f"{name}.bin", name.encode())
        self._cache(name, uri, name, namespaceSelector=selector, priority=10)
        own = world.http.put(f"own-{name}.bin", name.encode())
        spec = {"sourceModelUri": own, "modelSize": "1Mi", "nodeGroups": [name]}
        world.make(an_object(NAMESPACE_CACHES, f"own-{name}", name, spec=spec))

    def _cache(self, name: str, uri: str, group: str, **spec: object) -> None:
        own = {"sourceModelUri": uri, "modelSize": "1Mi", "nodeGroups": [group]}
        self.world.make(an_object(CACHES, name, spec=own | spec))

    def fetch_with_credentials(self, name: str) -> None:
        """A cache whose credentials are a ServiceAccount, a Secret and a ConfigMap."""
        world = self.world
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        settings = {"cabundle-configmap": name, "endpoint": "127.0.0.1:1"}
        world.secret(name, keys, **settings)
        world.service_account(name, name)
        world.kubectl("-n", DEFAULT_NAMESPACE, "create", "configmap", name, "--from-literal=x=y")
        self._cache(f"{name}-s3", f"s3://{name}/model", KEPT, serviceAccountName=name)

    def wait_with_a_pod(self, name: str) -> None:
        """A slow download, and a pod that kubelet cannot start without it."""
        world = self.world
        world.http.bytes_per_second = BYTES_PER_SECOND
        world.http.delays[f"{name}-slow.bin"] = ANSWER_SECONDS
        uri = world.http.put(f"{name}-slow.bin", name.encode().ljust(SLOW_BYTES, b"."))
        cache = f"{name}-slow"
        self._cache(cache, uri, KEPT)
        mount = {"name": "m", "mountPath": "/m", "subPath": f"models/{model_key(uri)}"}
        claim = {"claimName": f"{cache}-{KEPT}", "readOnly": True}
        spec = {
            "nodeName": NODE,
            "automountServiceAccountToken": False,
            "containers": [{"name": "c", "image": "c", "volumeMounts": [mount]}],
            "volumes": [{"name": "m", "persistentVolumeClaim": claim}],
        }
        world.make(an_object(PODS, name, KEPT, spec=spec))
        state = {"waiting": {"reason": "CreateContainerConfigError"}}
        container = {"name": "c", "image": "c", "imageID": "", "ready": False, "restartCount": 0}
        status = {"phase": "Pending", "containerStatuses": [container | {"state": state}]}
        world.api.patch(PODS, name, {"status": status}, KEPT, subresource="status")

    def forget(self, name: str) -> None:
        """Remove what `fetch_with_credentials` and `wait_with_a_pod` made: places get free."""
        with suppress(NotFoundError):
            self.world.api.delete(PODS, name, KEPT, grace_seconds=0)
        for cache in (f"{name}-s3", f"{name}-slow"):
            with suppress(NotFoundError):
                self.world.delete(CACHES, cache)

    def add_a_tainted_node(self, name: str) -> None:
        """A new Node with the startup taint, whose agent removes it."""
        node = f"fresh-{name}"
        taint = {"key": min(KEYS), "effect": "NoSchedule"}
        self.world.make(an_object(NODES, node, spec={"taints": [taint]}))
        self.cluster.node_up(node, labels={KEPT: "yes"})
        self.fresh.append(node)

    def remove_tainted_nodes(self) -> None:
        """Remove the Nodes of `add_a_tainted_node` with their agents."""
        while self.fresh:
            self.cluster.node_down(self.fresh.pop())

    def download_again(self) -> None:
        """Create the cache of a model without another group, or delete it if it is downloaded."""
        world = self.world
        uri = world.http.put("again.bin", b"again")
        if world.find(CACHES, "again") is None:
            self._cache("again", uri, KEPT)
        elif world.published(NODE, uri):
            with suppress(NotFoundError):
                world.delete(CACHES, "again")

    def orphan(self) -> None:
        """Take the owners off objects of Metacontroller, which adopts the objects again."""
        api = self.world.api
        for kind in (PLACEMENTS, LOCAL_MODEL_NODES, VOLUMES, CLAIMS):
            for obj in api.list(kind):
                metadata = obj["metadata"]
                if KEPT in metadata["name"] and metadata.get("ownerReferences"):
                    change = {"metadata": {"ownerReferences": None}}
                    api.patch(kind, metadata["name"], change, metadata.get("namespace", ""))

    def end(self) -> None:
        """Let Metacontroller delete claims, volumes, a plan and a LocalModelNode."""
        world = self.world
        world.patch(NAMESPACES, ENDING, {"metadata": {"labels": {ENDING: None}}})
        for kind in (CACHES, GROUPS):
            with suppress(NotFoundError):
                world.delete(kind, ENDING)
        with suppress(NotFoundError):
            world.delete(NAMESPACE_CACHES, f"own-{ENDING}", ENDING)
        with suppress(NotFoundError):
            labels = {"metadata": {"labels": {BARE: None}}}
            world.patch(NODES, f"bare-{ENDING}", labels)

    def poke_metacontroller(self, *, restart: bool = False) -> None:
        """Make Metacontroller need every right. restart: those to read, too."""
        self.rounds += 1
        if restart:
            self.restart_metacontroller()
        self.begin(f"round-{self.rounds}")
        self.orphan()

    def poke_agents(self, *, restart: bool = False) -> None:
        """Make agents need every right. restart: those to read, too."""
        self.forget(f"round-{self.rounds}")
        self.rounds += 1
        name = f"round-{self.rounds}"
        if restart:
            self.restart_agent()
        self.fetch_with_credentials(name)
        self.wait_with_a_pod(name)
        self.download_again()
        self.add_a_tainted_node(name)


@contextmanager
def running(folder: Path, metacontroller: MetacontrollerChoice) -> Iterator[Scene]:
    """A cluster of the kserve overlay with all components, on which two sets of objects are."""
    cluster = Cluster(folder)
    http = HttpOrigin()
    cluster.up(
        1,
        metacontroller=metacontroller,
        default_storage_class=True,
        grace_seconds=0.5,
        progress_seconds=0.5,
        overlay="kserve",
        agent_env={"LOCALMODEL_STARTUP_TAINT_PRIORITY": "10"},
        owner_pid=os.getpid(),
    )
    try:
        world = World(cluster, http, S3Origin())
        token = {"stringData": {"token": secrets.token_hex(32)}}
        world.make(an_object(SECRETS, "localmodel-hooks-token", "localmodel", **token))
        files = [CHECKOUT / file for file in COMPONENTS]
        manifests.apply_all(cluster.api, manifests.read(files, hooks_url=""))
        rendered = world.kubectl("kustomize", str(CHECKOUT / TOKEN_CONTROLLERS))
        manifests.apply_all(cluster.api, manifests.parse(rendered, hooks_url=cluster.hooks_url))
        scene = Scene(world)
        # The workloads of the base beside the services of the overlay.
        names = overlay.hooks_environment(CHECKOUT, overlay.BASE)
        workloads = {k: v for k, v in names.items() if k == "LOCALMODEL_WORKLOAD_KINDS"}
        env = overlay.hooks_environment(CHECKOUT, "kserve") | workloads
        scene.run(product.HOOKS, product.hooks(cluster.state.ports, env))
        scene.restart_metacontroller()
        scene.restart_agent()
        world.group(BARE)
        for name in (KEPT, ENDING):
            scene.begin(name)
        for name in (KEPT, ENDING):
            world.wait_ready(name, 1)
            world.until(partial(world.find, CLAIMS, f"{name}-{name}", name), "the claim")
        world.until(
            lambda: world.find(LOCAL_MODEL_NODES, f"bare-{ENDING}"), "the object of a bare Node"
        )
        yield scene
    finally:
        cluster.down()
        http.close()
