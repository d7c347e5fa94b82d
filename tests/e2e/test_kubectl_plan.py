"""`kubectl localmodel plan` says what then happens.

All situations are prepared, planned, applied and compared together: each has groups of its own, so
that none changes another one's plan.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from crds.base import API_VERSION
from crds.keys import model_key
from deploy.kube import meta
from deploy.kube.errors import ApiError
from deploy.kube.kinds import CACHES, CLAIMS, GROUPS, LOCAL_MODEL_NODES, NAMESPACE_CACHES, Kind
from deploy.kubectl.main import plugin
from tests.e2e.world import RETURN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from deploy.kube.kinds import KubeObject
    from tests.e2e.world import World

MIB = 1 << 20
NODE = "node-1"
NODES = ("node-1", "node-2")
LRU = {"policy": "LRU", "highPercent": 100, "lowPercent": 100}
NONE = {"policy": "None"}
KINDS = {kind.name: kind for kind in (CACHES, NAMESPACE_CACHES, GROUPS)}


@dataclass
class Situation:
    """Documents to plan and to apply. `there` are made before, one round after the other.

    delete: the documents' objects are deleted instead. expected: what the plan must say, so that
    a plan and a cluster that both do nothing are no success.
    """

    name: str
    documents: list[KubeObject]
    expected: dict[str, Any]
    there: list[list[KubeObject]] = field(default_factory=list)
    delete: bool = False
    exit_code: int = 0
    plan: dict[str, Any] = field(default_factory=dict)


def uri_of(world: World, name: str, mib: int) -> str:
    return world.http.put(f"{name}.bin", name.encode().ljust(mib * MIB, b"."))


def group(name: str, *, label: str = "", **spec: Any) -> KubeObject:
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelNodeGroup",
        "metadata": {"name": name},
        "spec": {"nodeSelector": {label or name: "yes"}, "storageLimit": "2560Ki", **spec},
    }


def cache(
    world: World, name: str, in_group: str, *, mib: int = 1, namespace: str = "", **spec: Any
) -> KubeObject:
    uri = spec.pop("uri", None) or uri_of(world, name, mib)
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelNamespaceCache" if namespace else "LocalModelCache",
        "metadata": metadata,
        "spec": {
            "sourceModelUri": uri,
            "modelSize": f"{mib}Mi",
            "nodeGroup": in_group,
            **spec,
        },
    }


def situations(world: World) -> list[Situation]:
    first = cache(world, "plansame-a", "plansame")
    pinned = cache(world, "planunpin-a", "planunpin", mib=2, retention="Pinned")
    unpinned = {**pinned, "spec": {**pinned["spec"], "retention": "Evictable"}}
    return [
        Situation(
            "it fits, on two nodes, with a claim",
            [
                group("planfits"),
                cache(
                    world,
                    "planfits-a",
                    "planfits",
                    namespaceSelector={"matchLabels": {"planfits": "yes"}},
                ),
            ],
            {"admitted": [True, True], "downloads": 2, "claims": ["planfits/planfits-a-planfits"]},
        ),
        Situation(
            "larger than the group's limit",
            [cache(world, "planlarge-a", "planlarge", mib=3)],
            {"admitted": [False], "reasons": ["ModelTooLarge"]},
            there=[[group("planlarge", eviction=LRU)]],
            exit_code=2,
        ),
        Situation(
            "no room in a group that does not evict",
            [cache(world, "plannone-b", "plannone", mib=2)],
            {"admitted": [False], "reasons": ["StorageLimitExceeded"]},
            there=[[group("plannone", eviction=NONE), cache(world, "plannone-a", "plannone")]],
            exit_code=2,
        ),
        Situation(
            "the least recently used goes",
            [cache(world, "planlru-c", "planlru")],
            {"admitted": [True], "downloads": 1, "evictions": ["planlru-a"]},
            there=[
                [group("planlru", eviction=LRU), cache(world, "planlru-a", "planlru")],
                [cache(world, "planlru-b", "planlru")],
            ],
        ),
        Situation(
            "it waits for a pinned one",
            [cache(world, "planpin-b", "planpin")],
            {"admitted": [True], "waits": ["planpin-b"]},
            there=[
                [
                    group("planpin", eviction=LRU),
                    cache(world, "planpin-a", "planpin", mib=2, retention="Pinned"),
                ]
            ],
        ),
        Situation(
            "an unknown group",
            [cache(world, "planlost-a", "planlost")],
            {"admitted": [False], "reasons": ["NodeGroupNotFound"]},
            exit_code=2,
        ),
        Situation(
            "a group without nodes",
            [group("planempty"), cache(world, "planempty-a", "planempty")],
            {"admitted": [True, True], "ready": ["NoNodes", "NoNodes"]},
        ),
        Situation(
            "the URI of another cache",
            [cache(world, "plansame-b", "plansame", uri=first["spec"]["sourceModelUri"])],
            {"admitted": [False], "reasons": ["Refused"]},
            there=[[group("plansame"), first]],
            exit_code=2,
        ),
        Situation(
            "of two, the more important one fits",
            [
                cache(world, "planprio-b", "planprio", mib=2),
                cache(world, "planprio-c", "planprio", mib=2, priority=5),
                # Last: with their group there, the hooks would admit whichever they saw first.
                group("planprio", eviction=NONE),
            ],
            {"admitted": [False, True, True], "downloads": 1},
            exit_code=2,
        ),
        Situation(
            "an important one evicts one of a lower priority",
            [cache(world, "planfirst-c", "planfirst", priority=7)],
            {"admitted": [True], "downloads": 1, "evictions": ["planfirst-b"]},
            there=[
                [
                    group("planfirst", eviction=LRU),
                    cache(world, "planfirst-a", "planfirst", priority=3),
                ],
                [cache(world, "planfirst-b", "planfirst", priority=1)],
            ],
        ),
        Situation(
            "an unpinned one goes for one that waits",
            [unpinned],
            {"admitted": [True], "downloads": 1, "evictions": ["planunpin-a"]},
            there=[
                [group("planunpin", eviction=LRU), pinned],
                [cache(world, "planunpin-b", "planunpin", mib=2, priority=1)],
            ],
        ),
        Situation(
            "a limit that shrinks",
            [group("planless", eviction=LRU, storageLimit="1536Ki")],
            {"admitted": [True], "evictions": ["planless-a"]},
            there=[
                [group("planless", eviction=LRU), cache(world, "planless-a", "planless")],
                [cache(world, "planless-b", "planless")],
            ],
        ),
        Situation(
            "a limit that shrinks where nothing is evicted",
            [group("planover", eviction=NONE, storageLimit="512Ki")],
            {"admitted": [True], "reasons": ["AdmittedExceedLimit"]},
            there=[[group("planover", eviction=NONE), cache(world, "planover-a", "planover")]],
        ),
        Situation(
            "the cache of a namespace",
            [cache(world, "planown-a", "planown", namespace="planown")],
            {"admitted": [True], "downloads": 1, "claims": ["planown/planown-a-planown"]},
            there=[[group("planown")]],
        ),
        Situation(
            "a deletion makes room for another cache",
            [cache(world, "plangone-a", "plangone", mib=2)],
            {
                "admitted": [None],
                "removals": ["plangone-a"],
                "shifts": ["plangone-b"],
                "downloads": 1,
            },
            there=[
                [
                    group("plangone", eviction=NONE),
                    cache(world, "plangone-a", "plangone", mib=2),
                ],
                [cache(world, "plangone-b", "plangone", mib=2)],
            ],
            delete=True,
        ),
        Situation(
            "a field with a typing error",
            [cache(world, "plantypo-a", "plansame", retension="Pinned")],
            {"admitted": [False], "reasons": ["Refused"]},
            exit_code=2,
        ),
    ]


def identity(obj: KubeObject) -> tuple[Kind, str, str]:
    return KINDS[obj["kind"]], meta.name(obj), meta.namespace(obj)


def prepare(world: World, found: list[Situation]) -> None:
    for node in NODES:
        world.node(node, "planfits")
    labels = {
        meta.name(one)
        for situation in found
        for one in (*situation.documents, *(o for part in situation.there for o in part))
        if one["kind"] == "LocalModelNodeGroup"
    }
    world.node(NODE, *sorted(labels - {"planempty"}))
    world.namespace("planfits", planfits="yes")
    world.namespace("planown")
    for number in range(max(len(situation.there) for situation in found)):
        made = [o for s in found if number < len(s.there) for o in s.there[number]]
        for one in made:
            world.make(one)
        for one in made:
            if one["kind"] == "LocalModelCache":
                settle(world, meta.name(one))
        # The status has the times of publications in seconds, and the order counts.
        time.sleep(1.1)
    for one in (o for s in found for part in s.there for o in part):
        if one["kind"] == "LocalModelNodeGroup":
            world.wait_condition(meta.name(one), "NodesFound", resource=GROUPS)


def settle(world: World, name: str) -> None:
    """Until a cache is Ready, rejected, or waits for room."""

    def settled() -> bool:
        if world.condition(CACHES, name, "Admitted").get("status") == "False":
            return True
        ready = world.condition(CACHES, name)
        return ready.get("status") == "True" or "CapacityFull" in ready.get("message", "")

    # The first cache of a cluster: Metacontroller backs off while its informers begin.
    world.until(settled, f"{name} to settle", RETURN_SECONDS)


def make_plan(world: World, situation: Situation) -> None:
    arguments = ["--kubeconfig", str(world.cluster.kubeconfig), "plan", "-f", "-", "-o", "json"]
    if situation.delete:
        arguments.append("--delete")
    text = yaml.safe_dump_all(situation.documents)
    done = CliRunner().invoke(plugin, arguments, input=text, catch_exceptions=False)
    assert done.exit_code == situation.exit_code, (situation.name, done.output)
    situation.plan = json.loads(done.stdout)


def names(rows: list[dict[str, Any]]) -> list[str]:
    return sorted({model for row in rows for model in row["models"]})


def check_expected(situation: Situation) -> None:
    """The plan says what the situation was made for, and nothing else."""
    plan, expected = situation.plan, situation.expected
    outcomes = plan["outcomes"]
    found = {
        "admitted": [one["admitted"] for one in outcomes],
        "reasons": [one["reason"] for one in outcomes],
        "ready": [one["readyReason"] for one in outcomes],
        "downloads": len(plan["downloads"]),
        "evictions": names(plan["evictions"]),
        "waits": names(plan["waits"]),
        "removals": names(plan["removals"]),
        "shifts": [one["name"] for one in plan["shifts"]],
        "claims": sorted(claim for one in outcomes for claim in one["claimsMade"]),
    }
    assert {key: found[key] for key in expected} == expected, situation.name
    nothing = {"downloads": 0, "evictions": [], "waits": [], "removals": [], "shifts": []}
    rest = {key: found[key] for key in nothing if key not in expected}
    assert rest == {key: nothing[key] for key in rest}, situation.name


def apply(world: World, situation: Situation) -> None:
    caches: list[str] = []
    for document, outcome in zip(situation.documents, situation.plan["outcomes"], strict=True):
        if document["kind"] == "LocalModelNodeGroup":
            for name in caches:
                settle(world, name)
        if situation.delete:
            world.api.delete(*identity(document))
        elif outcome["reason"] == "Refused":
            with pytest.raises(ApiError) as refused:
                world.api.create(document, strict=True)
            assert refused.value.message == outcome["message"]
        else:
            world.make(document)
            if document["kind"] == "LocalModelCache":
                caches.append(meta.name(document))


class Comparison:
    """Waits until the cluster is as a plan said."""

    def __init__(self, world: World, situation: Situation) -> None:
        self._world, self._situation = world, situation
        self._plan = situation.plan

    def run(self) -> None:
        for document, outcome in zip(
            self._situation.documents, self._plan["outcomes"], strict=True
        ):
            if outcome["reason"] != "Refused" and not self._situation.delete:
                self._object(document, outcome)
        for row in self._plan["downloads"]:
            self._state(row, "Downloaded")
        for row in self._plan["evictions"]:
            self._state(row, "Evicted", row["reason"])
        for row in self._plan["waits"]:
            self._state(row, "Pending", "CapacityFull")
        for row in self._plan["removals"]:
            folder = self._world.cluster.nodes_dir / row["node"] / "models" / row["key"]
            self._until(partial(_is_gone, folder), f"removal {row}")
        for shift in self._plan["shifts"]:
            condition = {"status": "True" if shift["admitted"] else "False"}
            self._condition(CACHES, shift["name"], "", "Admitted", condition)

    def _object(self, document: KubeObject, outcome: dict[str, Any]) -> None:
        kind, name, namespace = identity(document)
        words = {"reason": outcome["reason"], "message": outcome["message"]}
        if kind is GROUPS:
            type_ = "OverLimit" if outcome["reason"] == "AdmittedExceedLimit" else "Ready"
            self._condition(kind, name, namespace, type_, {"reason": outcome["reason"]})
            return
        status = "True" if outcome["admitted"] else "False"
        self._condition(kind, name, namespace, "Admitted", words | {"status": status})
        listing = [
            meta.name(node)
            for node in self._world.api.list(LOCAL_MODEL_NODES)
            for entry in node["spec"]["localModels"]
            if (entry.get("namespace", ""), entry["modelName"]) == (namespace, name)
        ]
        assert len(listing) == outcome["nodes"], (self._situation.name, listing)
        for claim in outcome["claimsMade"]:
            where, _, claim_name = claim.partition("/")
            self._until(partial(self._world.find, CLAIMS, claim_name, where), f"claim {claim}")

    def _state(self, row: dict[str, Any], state: str, reason: str | None = None) -> None:
        def has_it() -> bool:
            node = self._world.find(LOCAL_MODEL_NODES, row["node"]) or {}
            found: list[tuple[str, str | None]] = [
                (model["state"], model.get("reason"))
                for model in node.get("status", {}).get("models", ())
                if model["key"] == row["key"]
            ]
            return found == [(state, reason)]

        self._until(has_it, f"{row['models']} to be {state} on {row['node']}")

    def _condition(
        self, kind: Kind, name: str, namespace: str, type_: str, wanted: dict[str, str]
    ) -> None:
        def is_so() -> bool:
            obj = self._world.find(kind, name, namespace) or {}
            conditions = obj.get("status", {}).get("conditions", ())
            found: KubeObject = next((one for one in conditions if one["type"] == type_), {})
            return wanted.items() <= found.items()

        self._until(is_so, f"{kind.name} {name} to be {type_} with {wanted}")

    def _until(self, check: Callable[[], Any], what: str) -> None:
        self._world.until(check, f"{self._situation.name}: {what}")


def _is_gone(path: Path) -> bool:
    return not path.exists()


@pytest.mark.timeout(400)  # prepares, applies and compares all situations
def test_a_plan_says_what_then_happens(world: World) -> None:
    found = situations(world)
    prepare(world, found)
    for situation in found:
        make_plan(world, situation)
    for situation in found:
        check_expected(situation)
    evicted = {
        model_key(one["spec"]["sourceModelUri"])
        for one in world.api.list(CACHES)
        if meta.name(one).startswith("plan")
    } & keys_in_state(world, "Evicted")
    assert not evicted, "a plan changes nothing"
    for situation in found:
        apply(world, situation)
    for situation in found:
        Comparison(world, situation).run()
    # Nothing else was evicted.
    planned = {row["key"] for situation in found for row in situation.plan["evictions"]}
    ours = {
        model_key(one["spec"]["sourceModelUri"])
        for situation in found
        for one in (*situation.documents, *(o for part in situation.there for o in part))
        if "sourceModelUri" in one["spec"]
    }
    assert keys_in_state(world, "Evicted") & ours == planned
    world.delete(NAMESPACE_CACHES, "planown-a", "planown")
    world.remove_caches(
        *(
            meta.name(one)
            for situation in found
            for one in (*situation.documents, *(o for part in situation.there for o in part))
            if one["kind"] == "LocalModelCache"
        )
    )


def keys_in_state(world: World, state: str) -> set[str]:
    return {
        model["key"]
        for node in world.api.list(LOCAL_MODEL_NODES)
        for model in node.get("status", {}).get("models", ())
        if model["state"] == state
    }
