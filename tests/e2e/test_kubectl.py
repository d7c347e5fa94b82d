"""The plugin of kubectl on a real cluster, run by the real kubectl as a user who may only read."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from crds.base import GROUP as API_GROUP
from deploy.kube.client import KubeClient
from deploy.kube.errors import ForbiddenError
from deploy.kube.kinds import (
    CACHES,
    CRDS,
    GROUPS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    NODES,
    PLACEMENTS,
    Kind,
)
from deploy.kube.raw_client import STRATEGIC_PATCH
from deploy.kubectl.explain import CODES
from deploy.kubectl.links import LinkState
from deploy.kubectl.main import plugin as plugin_command
from deploy.local.layout import CHECKOUT, KUBECTL
from tests.e2e.world import World, an_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# As the ClusterRole localmodel-view, and Nodes, which are of no namespace.
READER = "plugin-reader"
READS: list[dict[str, list[str]]] = [
    {
        "apiGroups": [API_GROUP],
        "resources": [
            kind.plural
            for kind in (CACHES, NAMESPACE_CACHES, GROUPS, LOCAL_MODEL_NODES, PLACEMENTS)
        ],
    },
    {"apiGroups": [""], "resources": ["nodes"]},
]
USER = "plugin-user"
MIB = 1 << 20
ACCOUNTS = Kind("v1", "serviceaccounts", "ServiceAccount", namespaced=True)


@dataclass(frozen=True)
class Plugin:
    """`kubectl localmodel` as a user of a kubeconfig."""

    programs: Path
    kubeconfig: Path

    def run(self, *args: str, code: int = 0) -> str:
        """The output of a command, which must end with this exit code."""
        done = self._run("localmodel", *args)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout

    def error(self, *args: str, code: int = 1) -> str:
        """What a command that fails says."""
        done = self._run("localmodel", *args)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stderr

    def complete(self, *words: str) -> list[str]:
        """What kubectl proposes for the last word."""
        return self._run("__complete", "localmodel", *words).stdout.splitlines()

    def why(self, *args: str) -> dict[str, Any]:
        """The chain of a model as JSON, without a process; the exit code agrees with it."""
        env = {"KUBECONFIG": str(self.kubeconfig)}
        done = CliRunner().invoke(plugin_command, ["why", *args, "-o", "json"], env=env)
        assert done.stdout, done.stderr
        chain: dict[str, Any] = json.loads(done.stdout)
        assert done.exit_code == CODES[LinkState(chain["state"])]
        return chain

    def _run(self, *args: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        env = os.environ | {"PATH": path, "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run(
            [KUBECTL, *args], capture_output=True, text=True, check=False, env=env
        )


@pytest.fixture(scope="module")
def plugin(world: World, tmp_path_factory: pytest.TempPathFactory) -> Plugin:
    """The plugin as a user with the ClusterRole view, who may read Nodes too."""
    folder = tmp_path_factory.mktemp("plugin")
    for name, module in (
        ("kubectl-localmodel", "main"),
        ("kubectl_complete-localmodel", "complete"),
    ):
        program = folder / name
        code = f"exec {shlex.quote(sys.executable)} -m deploy.kubectl.{module}"
        program.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(CHECKOUT))} {code} "$@"\n')
        program.chmod(0o755)
    rbac = "rbac.authorization.k8s.io"
    head = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": READER}}
    world.make(head | {"rules": [rule | {"verbs": ["get", "list", "watch"]} for rule in READS]})
    metadata = {"name": USER, "namespace": "default"}
    world.make({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    for role in ("view", READER):
        world.make(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": f"plugin-{role}"},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount"} | metadata],
            }
        )
    token = world.kubectl("create", "token", USER, "-n", "default").strip()
    config = yaml.safe_load(world.cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    made = Plugin(folder, kubeconfig)
    user = KubeClient.connect(kubeconfig)
    # The controller that adds up the roles takes a moment.
    world.until(lambda: _may_list(user), "the user to have the rights of the ClusterRole view")
    return made


def _may_list(user: KubeClient) -> bool:
    try:
        user.list(PLACEMENTS)
    except ForbiddenError:
        return False
    return True


def check(
    world: World,
    plugin: Plugin,
    args: tuple[str, ...],
    link: str,
    reason: str,
    *words: str,
    state: str = "broken",
    seconds: float = 60.0,
) -> dict[str, Any]:
    """Wait until `why` names a cause: the link, its reason, and words of it. Returns the cause."""
    last: dict[str, Any] = {}

    def named() -> bool:
        last.clear()
        last.update(plugin.why(*args)["cause"] or {})
        return (last.get("name"), last.get("state"), last.get("reason")) == (link, state, reason)

    try:
        world.until(named, f"why {args} to name {link} {reason}", seconds)
    except Exception as error:
        raise AssertionError(f"why {args} names {last}") from error
    for word in words:
        assert word in last["words"], last
    return last


@pytest.fixture(scope="module")
def group(world: World) -> Iterator[str]:
    """A group of one node, with a model that is there."""
    world.node("node-1", "why")
    world.group("why")
    world.cache("why-here", world.http.put("why-here.bin", b"here" * 1000), "why")
    world.wait_ready("why-here", 1)
    yield "why"
    world.remove_caches("why-here")


@pytest.mark.usefixtures("group")
def test_a_model_that_is_there(plugin: Plugin) -> None:
    chain = plugin.why("why-here", "node-1")
    assert (chain["state"], chain["cause"], chain["node"]) == ("ok", None, "node-1")
    assert {link["state"] for link in chain["links"]} == {"ok"}
    names = [link["name"] for link in chain["links"]]
    assert names == [
        *("crds", "cache", "controller", "group", "admitted", "plan", "node", "entry", "agent"),
        *("disk", "copy", "claim"),
    ]
    again = json.loads(plugin.run("why", "why-here", "node-1", "-o", "json"))
    assert [link["name"] for link in again["links"]] == names
    text = plugin.run("why", "why-here")
    assert text.startswith("why-here: ok\n")
    assert "\x1b" not in text


@pytest.mark.usefixtures("group")
def test_status_and_du(plugin: Plugin) -> None:
    found = json.loads(plugin.run("status", "-o", "json"))
    (model,) = [one for one in found["models"] if one["name"] == "why-here"]
    assert (model["ready"], model["copies"]) == ("True", {"available": 1})
    text = plugin.run("status")
    assert "why-here" in text
    assert "\x1b" not in text
    use = json.loads(plugin.run("du", "-o", "json"))
    (used,) = [one for one in use["models"] if one["caches"] == ["why-here"]]
    assert used["copies"] == 1
    assert used["bytes"] >= 4000
    assert "why-here" in plugin.run("du", "node-1")


@pytest.mark.usefixtures("group")
def test_completion_and_names(plugin: Plugin) -> None:
    assert plugin.complete("wh")[0].startswith("why\t")
    assert plugin.complete("why", "why-h") == ["why-here", ":4"]
    assert "node-1" in plugin.complete("why", "why-here", "")
    assert plugin.complete("status", "-o", "j") == ["json", ":4"]
    assert "did you mean why-here?" in plugin.error("why", "why-hare")
    assert "there is no node" in plugin.error("why", "why-here", "node-one")
    assert "No such command" in plugin.error("when", code=2)


def test_a_group_that_does_not_exist(world: World, plugin: Plugin) -> None:
    world.cache("why-lost", "http://127.0.0.1:1/x", "why-nowhere")
    cause = check(
        world, plugin, ("why-lost",), "group", "NodeGroupNotFound", "why-nowhere does not exist"
    )
    assert "create the group" in cause["next"]
    world.remove_caches("why-lost")


def test_a_group_without_nodes_and_a_node_in_no_group(world: World, plugin: Plugin) -> None:
    world.node("node-1", "why")
    world.group("why-empty")
    world.cache("why-empty", "http://127.0.0.1:1/x", "why-empty")
    check(world, plugin, ("why-empty",), "group", "NoNodes", "no node matches", "why-empty=yes")
    world.remove_caches("why-empty")
    world.delete(GROUPS, "why-empty")


@pytest.mark.usefixtures("group")
def test_a_node_that_is_in_no_group_of_the_cache(world: World, plugin: Plugin) -> None:
    words = ("node-2 is in no group of the cache", "why requires why=yes")
    check(world, plugin, ("why-here", "node-2"), "node", "NotSelected", *words)


def test_a_model_larger_than_the_group(world: World, plugin: Plugin, group: str) -> None:
    world.cache("why-huge", "http://127.0.0.1:1/x", group, modelSize="2Gi")
    check(world, plugin, ("why-huge",), "admitted", "ModelTooLarge")
    world.remove_caches("why-huge")


def test_a_group_that_is_full(world: World, plugin: Plugin) -> None:
    world.node("node-1", "why-full")
    world.group("why-full", storageLimit="3Mi", eviction={"policy": "None"})
    world.cache(
        "why-first", world.http.put("why-1.bin", bytes(2 * MIB)), "why-full", modelSize="2Mi"
    )
    world.wait_ready("why-first", 1)
    world.cache("why-second", "http://127.0.0.1:1/x", "why-full", modelSize="2Mi")
    check(world, plugin, ("why-second",), "admitted", "StorageLimitExceeded", "1Mi are missing")
    world.remove_caches("why-second", "why-first")


def test_no_room_beside_a_pinned_model_and_an_evicted_model(world: World, plugin: Plugin) -> None:
    world.node("node-1", "why-room")
    lru = {"policy": "LRU", "highPercent": 100, "lowPercent": 100}
    world.group("why-room", storageLimit="2560Ki", eviction=lru)
    old = world.http.put("why-old.bin", bytes(MIB))
    world.cache("why-old", old, "why-room", modelSize="1Mi")
    world.wait_ready("why-old", 1)
    new = world.http.put("why-new.bin", b"n" * 2 * MIB)
    world.cache("why-new", new, "why-room", modelSize="2Mi")
    world.wait_ready("why-new", 1)
    cause = check(
        world, plugin, ("why-old", "node-1"), "room", "MadeRoom", "why-new", state="waiting"
    )
    assert "comes back" in cause["next"]

    world.cache("why-new", new, "why-room", modelSize="2Mi", retention="Pinned")
    world.cache("why-late", world.http.put("why-late.bin", b"l" * MIB), "why-room", modelSize="1Mi")
    check(world, plugin, ("why-late",), "room", "CapacityFull", "it needs 1Mi")
    world.remove_caches("why-old", "why-new", "why-late")


def test_sources_that_fail(world: World, plugin: Plugin, group: str) -> None:
    missing = world.http.url("why-missing.bin")
    world.cache("why-missing", missing, group)
    world.cache("why-down", "http://127.0.0.1:1/model.bin", group)
    world.cache("why-denied", "s3://why/denied", group, serviceAccountName="why-denied")
    content = world.http.put("why-hash.bin", b"hash")
    world.cache("why-hash", content, group, hash=f"sha256:{'0' * 64}")
    cause = check(world, plugin, ("why-missing",), "source", "NotFound", missing)
    assert "the agent tries again" in cause["next"]
    assert cause["since"]
    check(world, plugin, ("why-down",), "source", "Unreachable", "127.0.0.1:1")
    check(world, plugin, ("why-denied",), "access", "Denied", "why-denied")
    check(world, plugin, ("why-hash",), "content", "Corrupt", "hash")
    # The agent's words are those of the condition.
    world.until(
        lambda: cause["words"] in world.condition(CACHES, "why-missing").get("message", ""),
        "the condition to have the agent's words",
    )
    world.remove_caches("why-missing", "why-down", "why-denied", "why-hash")


def test_a_download_under_way_and_a_node_that_awaits_its_turn(world: World, plugin: Plugin) -> None:
    for node in ("node-1", "node-2"):
        world.node(node, "why-turn")
    world.group("why-turn", download={"maxConcurrentNodes": 1})
    world.wait_condition("why-turn", "NodesFound", resource=GROUPS)
    world.http.bytes_per_second = MIB / 4
    try:
        uri = world.http.put("why-turn.bin", b"t" * 24 * MIB)
        world.cache("why-turn", uri, "why-turn")

        def split() -> list[str]:
            reports = {node: world.report(node, uri) for node in ("node-1", "node-2")}
            found = {one.get("state", ""): node for node, one in reports.items()}
            both = {"Downloading", "Pending"} <= found.keys()
            return [found["Downloading"], found["Pending"]] if both else []

        first, second = world.until(split, "a node to download, and the other one to wait")
        check(world, plugin, ("why-turn", second), "turn", "AwaitingTurn", state="waiting")

        def has_rate() -> bool:
            args = ("why-turn", first)
            cause = check(
                world, plugin, args, "download", "Downloading", "of 24Mi", state="waiting"
            )
            return "/s" in cause["words"]

        # The first report of a download has no rate.
        world.until(has_rate, "why to say how fast the download is")
    finally:
        world.http.bytes_per_second = 0.0
    world.wait_ready("why-turn", 2)
    world.remove_caches("why-turn")


def test_a_claim_that_a_namespace_refuses(world: World, plugin: Plugin, group: str) -> None:
    world.namespace("why-claims", why="yes")
    limit = {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "1Ki"}}]}
    world.make(
        {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": "small", "namespace": "why-claims"},
            "spec": limit,
        }
    )
    uri = world.http.put("why-claim.bin", b"claim")
    selector = {"matchLabels": {"why": "yes"}}
    world.cache("why-claim", uri, group, namespaceSelector=selector)
    check(world, plugin, ("why-claim", "node-1"), "claim", "ClaimRefused", "why-claims")
    world.remove_caches("why-claim")


def test_a_node_that_is_not_ready(world: World, plugin: Plugin) -> None:
    world.node("node-why", "why-away")
    world.group("why-away")
    world.cache("why-away", world.http.put("why-away.bin", b"away"), "why-away")
    world.wait_ready("why-away", 1)
    _set_ready(world, "node-why", "False")
    try:
        check(world, plugin, ("why-away",), "node", "NodeNotReady", "node-why is not Ready: Test")
    finally:
        _set_ready(world, "node-why", "True")
    world.wait_ready("why-away", 1)
    world.remove_caches("why-away")


def test_an_agent_that_is_dead(world: World, plugin: Plugin) -> None:
    world.node("node-why", "why-dead")
    world.group("why-dead")
    world.wait_condition("why-dead", "NodesFound", resource=GROUPS)
    world.cluster.stop("agent-node-why")
    try:
        world.cache("why-dead", world.http.put("why-dead.bin", b"dead"), "why-dead")
        words = "the agent of node-why has not acted on the last change"
        check(world, plugin, ("why-dead",), "agent", "AgentSilent", words, seconds=90)
    finally:
        world.cluster.start("agent-node-why")
    world.wait_ready("why-dead", 1)
    assert plugin.why("why-dead")["state"] == "ok"
    world.remove_caches("why-dead")
    world.cluster.node_down("node-why")


@pytest.mark.parametrize("program", ["metacontroller", "hooks"])
def test_a_controller_that_is_down(world: World, plugin: Plugin, group: str, program: str) -> None:
    name = f"why-{program}"
    world.cluster.stop(program)
    try:
        world.cache(name, "http://127.0.0.1:1/x", group)

        def named() -> dict[str, Any]:
            cause: dict[str, Any] = plugin.why(name)["cause"]
            found = (cause["name"], cause["state"]) == ("controller", "broken")
            return cause if found else {}

        cause = world.until(named, f"why to say that {program} does not answer", 60)
        # Metacontroller's Events say that the hooks are down. It writes them late, or not at all.
        # Here it has no StatefulSet that could say that Metacontroller itself is down.
        down = {"metacontroller": "MetacontrollerDown", "hooks": "HooksDown"}
        assert cause["reason"] in {"ControllerSilent", down[program]}
        assert f"LocalModelCache {name} is not answered" in cause["words"]
    finally:
        world.cluster.start(program)
    world.wait_condition(name, "DownloadFailed")
    world.remove_caches(name)


def test_a_crd_that_is_gone(world: World, plugin: Plugin, group: str) -> None:
    crd = world.api.get(CRDS, PLACEMENTS.crd)
    world.delete(CRDS, PLACEMENTS.crd)
    try:
        check(world, plugin, ("why-here",), "crds", "CrdMissing", "the kind LocalModelPlacement")
    finally:
        world.until(lambda: not world.find(CRDS, PLACEMENTS.crd), "the CRD to be gone")
        head = {key: crd[key] for key in ("apiVersion", "kind", "spec")}
        world.make(head | {"metadata": {"name": PLACEMENTS.crd}})
    world.until(lambda: world.find(PLACEMENTS, group), "the plan to be back", 180)
    world.until(lambda: plugin.why("why-here")["state"] == "ok", "all to be well again", 180)


def test_a_user_without_rights_and_a_cluster_that_is_away(
    world: World, plugin: Plugin, tmp_path: Path
) -> None:
    config = yaml.safe_load(plugin.kubeconfig.read_text())
    world.make(an_object(ACCOUNTS, "plugin-nobody", "default"))
    token = world.kubectl("create", "token", "plugin-nobody", "-n", "default").strip()
    config["users"][0]["user"] = {"token": token}
    nobody = tmp_path / "nobody"
    nobody.write_text(json.dumps(config))
    assert "cannot list resource" in plugin.error("status", "--kubeconfig", str(nobody))
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    away = tmp_path / "away"
    away.write_text(json.dumps(config))
    assert "the API server does not answer" in plugin.error("status", "--kubeconfig", str(away))
    missing = plugin.error("status", "--kubeconfig", str(tmp_path / "none"), code=2)
    assert "cannot use the kubeconfig" in missing
    assert "cannot use the kubeconfig" in plugin.error("status", "--context", "none", code=2)


def _set_ready(world: World, node: str, status: str) -> None:
    conditions = [{"type": "Ready", "status": status, "reason": "Test", "message": "test"}]
    world.api.request(
        "PATCH",
        NODES.path(node, subresource="status"),
        body={"status": {"conditions": conditions}},
        content_type=STRATEGIC_PATCH,
    )
