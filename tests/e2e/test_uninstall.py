"""`localmodel-uninstall` leaves the models or removes them, also without Metacontroller."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from crds.keys import model_key
from deploy.kube import meta
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    COMPOSITES,
    DECORATORS,
    GROUPS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    NODES,
    PLACEMENTS,
    VOLUMES,
)
from deploy.local import manifests
from deploy.local.cluster import Cluster
from deploy.local.layout import CHECKOUT
from deploy.local.origin import S3Origin
from deploy.local.real.pods import pod
from deploy.takeover.console import A_PERSON_FIRST, FAILED, OK
from deploy.takeover.names import FINALIZERS
from hooks.naming import is_warm_label
from tests.content import weights
from tests.e2e import audit
from tests.e2e.origin import HttpOrigin
from tests.e2e.world import GRACE_SECONDS, RETURN_SECONDS, World

if TYPE_CHECKING:
    from collections.abc import Iterator

# All tests of this module change one cluster.
pytestmark = pytest.mark.xdist_group("uninstall")

NODE_NAMES = ("node-1", "node-2")
SPACE = "team-a"
CLAIM = "llama-gpu"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    cluster = Cluster(tmp_path_factory.mktemp("uninstall") / "local")
    http = HttpOrigin()
    cluster.up(
        len(NODE_NAMES),
        metacontroller="auto",
        grace_seconds=GRACE_SECONDS,
        progress_seconds=0.5,
        owner_pid=os.getpid(),
    )
    try:
        yield World(cluster, http, S3Origin())
        audit.check(cluster)
    finally:
        cluster.down()
        http.close()


def uninstall(world: World, models: str, *flags: str) -> tuple[int, str]:
    """Run the command as the administrator. Returns its exit code and output."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "deploy.takeover.uninstall"),
            *(f"--kubeconfig={world.cluster.kubeconfig}", f"--models={models}", *flags),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    return done.returncode, done.stdout + done.stderr


def install_controllers(world: World) -> None:
    files = manifests.controller_files(CHECKOUT)
    objects = manifests.read(files, hooks_url=world.cluster.hooks_url)
    manifests.apply_all(world.api, objects)


@pytest.fixture
def installed(world: World) -> tuple[str, str]:
    """A model of a LocalModelCache and one of a namespace's, on both nodes. Returns their URIs."""
    install_controllers(world)
    for name in ("hooks", "metacontroller"):
        if world.cluster.pid(name) is None:
            world.cluster.start(name)
    llama = world.http.put("llama.bin", weights(200_000))
    small = world.http.put("small.bin", weights(1_000))
    for name in NODE_NAMES:
        world.node(name, "gpu")
    world.group("gpu")
    world.namespace(SPACE, models="yes")
    world.cache("llama", llama, "gpu", namespaceSelector={"matchLabels": {"models": "yes"}})
    world.make(
        {
            "apiVersion": NAMESPACE_CACHES.api_version,
            "kind": NAMESPACE_CACHES.name,
            "metadata": {"name": "small", "namespace": SPACE},
            "spec": {"sourceModelUri": small, "modelSize": "1Mi", "nodeGroup": "gpu"},
        }
    )
    # Metacontroller repeats a call that failed while the hooks started after up to a minute.
    world.wait_ready("llama", len(NODE_NAMES), RETURN_SECONDS)
    for claim in (CLAIM, "small-gpu"):
        world.wait_bound(SPACE, claim, RETURN_SECONDS)
    world.until(
        lambda: all(world.published(node, small) for node in NODE_NAMES), "the namespace's model"
    )
    return llama, small


def _controllers(world: World) -> list[str]:
    found = (*world.api.list(COMPOSITES), *world.api.list(DECORATORS))
    return [one["metadata"]["name"] for one in found]


def _left(world: World) -> list[str]:
    """The names of localmodel's objects, and of the claims and volumes that it made."""
    kinds = (CACHES, NAMESPACE_CACHES, GROUPS, PLACEMENTS, LOCAL_MODEL_NODES, CLAIMS, VOLUMES)
    return [
        f"{kind.name} {one['metadata']['name']}" for kind in kinds for one in world.api.list(kind)
    ]


@pytest.mark.usefixtures("installed")
def test_it_only_shows_the_steps_without_apply(world: World) -> None:
    before = _left(world)
    for models in ("keep", "remove"):
        code, said = uninstall(world, models)
        assert code == OK, said
        assert "delete CompositeController localmodel-caches" in said
    assert len(_controllers(world)) == 4
    assert _left(world) == before


def test_models_that_are_kept(world: World, installed: tuple[str, str]) -> None:
    before = {(node, uri): world.identity(node, uri) for node in NODE_NAMES for uri in installed}
    objects = _left(world)
    code, said = uninstall(world, "keep", "--apply")
    assert code == OK, said
    assert "kubectl delete namespace localmodel" in said
    assert _controllers(world) == []
    # The programs go now. Nothing of what serves models goes with them.
    for name in ("hooks", "metacontroller", *(f"agent-{node}" for node in NODE_NAMES)):
        world.cluster.stop(name)
    assert _left(world) == objects
    finalizers = {
        name
        for kind in (CACHES, NAMESPACE_CACHES, GROUPS)
        for one in world.api.list(kind)
        for name in meta.finalizers(one)
    }
    assert finalizers.isdisjoint(FINALIZERS)
    assert world.wait_bound(SPACE, CLAIM)
    assert uninstall(world, "keep", "--apply")[0] == OK

    # A later install downloads nothing again.
    gets = {uri: world.http.gets(uri.rpartition("/")[2]) for uri in installed}
    for node in NODE_NAMES:
        world.cluster.start(f"agent-{node}")
    world.cluster.start("hooks")
    world.cluster.start("metacontroller")
    install_controllers(world)
    world.until(
        lambda: all(FINALIZERS[0] in meta.finalizers(one) for one in world.api.list(CACHES)),
        "Metacontroller to manage the cache again",
    )
    world.wait_ready("llama", len(NODE_NAMES), RETURN_SECONDS)
    after = {(node, uri): world.identity(node, uri) for node in NODE_NAMES for uri in installed}
    assert after == before
    assert {uri: world.http.gets(uri.rpartition("/")[2]) for uri in installed} == gets


def test_a_model_that_a_pod_uses_is_not_removed(world: World, installed: tuple[str, str]) -> None:
    llama, _ = installed
    server = pod("server", SPACE, claim=CLAIM, sub_path=f"models/{model_key(llama)}")
    # No scheduler runs here.
    server["spec"]["nodeName"] = "node-1"
    world.api.create(server)
    world.until(lambda: world.report("node-1", llama).get("pods"), "the pod to be seen")
    code, said = uninstall(world, "remove", "--apply")
    assert code == A_PERSON_FIRST, said
    assert "delete the pods on the node node-1 that use llama" in said
    assert len(_controllers(world)) == 4
    world.kubectl("-n", SPACE, "delete", "pod", "server", "--force")
    world.until(lambda: not world.report("node-1", llama).get("pods"), "the pod to be gone")


@pytest.mark.parametrize("alive", [True, False], ids=["all-runs", "no-hooks-no-metacontroller"])
def test_models_that_are_removed(world: World, installed: tuple[str, str], alive: bool) -> None:
    if not alive:
        world.cluster.stop("metacontroller")
        world.cluster.stop("hooks")
    code, said = uninstall(world, "remove", "--apply")
    assert code == OK, said
    for node in NODE_NAMES:
        assert not any(world.published(node, uri) for uri in installed)
        labels = meta.labels(world.api.get(NODES, node))
        assert not [one for one in labels if is_warm_label(one)]
    assert _controllers(world) == []
    # Kubernetes deletes claims and volumes after their caches.
    world.until(lambda: not _left(world), "the claims and volumes to be gone")
    code, said = uninstall(world, "remove", "--apply")
    assert code == OK, said
    assert "Nothing is left to do here." in said


def test_a_node_without_an_agent_is_named(world: World, installed: tuple[str, str]) -> None:
    llama, _ = installed
    world.cluster.stop("agent-node-2")
    code, said = uninstall(world, "remove", "--apply", f"--timeout={GRACE_SECONDS + 15:g}")
    assert code == FAILED, said
    assert "agents still report models, or nothing: node-2." in said
    assert world.published("node-2", llama)
    world.cluster.start("agent-node-2")
    code, said = uninstall(world, "remove", "--apply")
    assert code == OK, said
    assert not world.published("node-2", llama)
