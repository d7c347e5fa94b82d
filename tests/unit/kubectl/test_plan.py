"""Plans of files, by the hooks and the agents' arithmetic, over objects in memory."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crds.keys import model_key
from crds.node_requests import Operation, request_annotation
from crds.quantity import parse_quantity
from deploy.kube.kinds import (
    CACHES,
    GROUPS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    PLACEMENTS,
    KubeObject,
)
from deploy.kubectl.change import (
    EvictionEffect,
    NoCopyError,
    copy_on,
    eviction_effect,
    eviction_progress,
    pods_of_claims,
    request_patch,
    request_time,
    verification_progress,
)
from deploy.kubectl.node_forecast import forecast
from deploy.kubectl.plan import Action, Change, Plan, make_plan, summary
from deploy.kubectl.plan_command import as_json
from deploy.kubectl.plan_input import DEFAULT_SETTINGS, DocumentError, read_documents
from deploy.kubectl.simulation import Foreign, Simulation, Stored
from deploy.kubectl.snapshot import Snapshot

NOW = datetime(2026, 8, 1, 12, 0, tzinfo=UTC)
LRU = {"policy": "LRU", "highPercent": 100, "lowPercent": 100}


def obj(kind: str, name: str, spec: dict[str, Any], namespace: str = "") -> KubeObject:
    metadata = {
        "name": name,
        "uid": f"uid-of-{name}",
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": "2026-07-01T00:00:00Z",
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": kind,
        "metadata": metadata | ({"namespace": namespace} if namespace else {}),
        "spec": spec,
        "status": {"observedGeneration": -1},
    }


def cache(name: str, size: str = "1Gi", namespace: str = "", **spec: Any) -> KubeObject:
    kind = "LocalModelNamespaceCache" if namespace else "LocalModelCache"
    head = {"sourceModelUri": f"s3://models/{name}", "modelSize": size, "nodeGroup": "gpus"}
    return obj(kind, name, head | spec, namespace)


def group(limit: str = "2Gi", **spec: Any) -> KubeObject:
    head = {"nodeSelector": {"pool": "gpu"}, "storageLimit": limit, "eviction": LRU}
    return obj("LocalModelNodeGroup", "gpus", head | spec)


def node(name: str) -> KubeObject:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"pool": "gpu"}, "resourceVersion": "1"},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }


def settled(*caches: KubeObject, nodes: int = 1, **changes: Any) -> Snapshot:
    """A cluster whose nodes have all models that they list, the first ones the oldest.

    changes: fields of the report of a model, by its name.
    """
    names = [f"node-{n}" for n in range(1, nodes + 1)]
    simulation = Simulation(
        DEFAULT_SETTINGS,
        NOW,
        {
            CACHES: {one["metadata"]["name"]: Stored(one) for one in caches},
            GROUPS: {"gpus": Stored(group())},
            NAMESPACE_CACHES: {},
            PLACEMENTS: {},
            LOCAL_MODEL_NODES: {},
        },
        {name: Stored(node(name)) for name in names},
    )
    simulation.run(["gpus"])
    lists = simulation.objects[LOCAL_MODEL_NODES]
    for name in names:
        stored = lists[name]
        models = [
            reported(entry, minute, changes.get(entry["modelName"], {}))
            for minute, entry in enumerate(stored.obj["spec"]["localModels"])
        ]
        status = {"observedGeneration": 1, "models": models}
        lists[name] = Stored({**stored.obj, "status": status})
    simulation.run(["gpus"])
    return Snapshot(
        caches=tuple(caches),
        groups=tuple(one.obj for one in simulation.objects[GROUPS].values()),
        placements=tuple(one.obj for one in simulation.objects[PLACEMENTS].values()),
        local_model_nodes=tuple(one.obj for one in lists.values()),
        nodes=tuple(map(node, names)),
        at=simulation.now,
    )


def reported(entry: KubeObject, minute: int, changes: dict[str, Any]) -> dict[str, Any]:
    size = parse_quantity(entry["modelSize"])
    return {
        "key": model_key(entry["sourceModelUri"]),
        "name": entry["modelName"],
        "state": "Downloaded",
        "cached": True,
        "size": size,
        "diskBytes": size,
        "verifiedTime": f"2026-08-01T10:{minute:02}:00Z",
        **changes,
    }


def plan(snapshot: Snapshot, *objects: KubeObject, action: Action = Action.CREATE) -> Plan:
    kinds = {kind.name: kind for kind in (CACHES, NAMESPACE_CACHES, GROUPS)}
    changes = [Change(kinds[one["kind"]], one, action) for one in objects]
    return make_plan(snapshot, changes, Foreign(), DEFAULT_SETTINGS)


def test_a_first_cache_is_downloaded_to_all_nodes() -> None:
    found = plan(settled(nodes=3), cache("a"))
    (outcome,) = found.outcomes
    assert (outcome.admitted, outcome.reason, outcome.nodes) == (True, "Placed", 3)
    assert [(one.node, one.bytes, one.known) for one in found.downloads] == [
        (f"node-{n}", 1 << 30, False) for n in (1, 2, 3)
    ]
    assert summary(found) == "3Gi are downloaded to 3 nodes"
    assert found.all_admitted


def _fields(value: Any) -> set[str]:
    """The names of all fields of a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(_fields, value.values()))
    return set().union(*map(_fields, value)) if isinstance(value, list | tuple) else set()


def test_the_json_has_the_names_of_kubernetes() -> None:
    evicting = as_json(plan(settled(cache("a"), cache("b")), cache("c")))
    waiting = as_json(
        plan(settled(cache("a"), cache("b"), a={"pods": 1}, b={"pods": 2}), cache("c"))
    )
    fields = _fields(evicting) | _fields(waiting)
    assert fields >= {
        "outcomes",
        "claimsMade",
        "readyReason",
        "waitsForTurn",
        "newcomers",
        "needed",
    }
    assert not {field for field in fields if not field.isalpha()}


def test_a_third_cache_evicts_the_oldest_copy_of_each_node() -> None:
    found = plan(settled(cache("a"), cache("b"), nodes=2), cache("c"))
    assert [(one.node, one.models, one.reason, one.newcomers) for one in found.evictions] == [
        ("node-1", ("a",), "MadeRoom", ("c",)),
        ("node-2", ("a",), "MadeRoom", ("c",)),
    ]
    assert summary(found) == "2Gi are downloaded to 2 nodes; 2 copies of 2Gi evicted"


def test_mounted_copies_stay_and_the_model_waits() -> None:
    found = plan(settled(cache("a"), cache("b"), a={"pods": 1}, b={"pods": 2}), cache("c"))
    assert not found.evictions
    (wait,) = found.waits
    assert (wait.models, wait.needed, wait.free, wait.of) == (
        ("c",),
        1 << 30,
        0,
        "the storageLimit of gpus",
    )
    assert found.all_admitted


def test_a_reported_size_counts_before_a_declared_one() -> None:
    snapshot = settled(cache("a"), a={"size": 1 << 20, "diskBytes": 1 << 20})
    (outcome,) = plan(snapshot, cache("b", "2Gi")).outcomes
    assert outcome.admitted
    found = plan(snapshot, cache("b", "2Gi"))
    assert [one.models for one in found.evictions] == [("a",)]


def test_no_plan_changes_the_snapshot() -> None:
    snapshot = settled(cache("a"), cache("b"))
    before = repr(snapshot)
    plan(snapshot, cache("c"), group("1Gi"))
    assert repr(snapshot) == before


def test_a_deleted_cache_leaves_its_nodes_and_its_copies_go() -> None:
    snapshot = settled(cache("a"), cache("b"), a={"pods": 2})
    found = plan(snapshot, snapshot.caches[0], action=Action.DELETE)
    assert [(one.models, one.pods) for one in found.removals] == [(("a",), 2)]
    (outcome,) = found.outcomes
    assert outcome.admitted is None
    assert found.all_admitted


def test_a_deleted_group_empties_its_nodes() -> None:
    snapshot = settled(cache("a"), cache("b"))
    found = plan(snapshot, snapshot.groups[0], action=Action.DELETE)
    assert sorted(one.models for one in found.removals) == [("a",), ("b",)]


def test_a_refused_document_changes_nothing() -> None:
    refused = Change(CACHES, cache("c"), Action.CREATE, "spec.modelSize: too small")
    found = make_plan(settled(cache("a")), [refused], Foreign(), DEFAULT_SETTINGS)
    assert not found.downloads
    (outcome,) = found.outcomes
    assert (outcome.admitted, outcome.message) == (False, "spec.modelSize: too small")
    assert not found.all_admitted


def test_a_namespace_cache_gets_a_claim_in_its_namespace() -> None:
    (outcome,) = plan(settled(), cache("a", namespace="team-a")).outcomes
    assert (outcome.admitted, outcome.claims_made) == (True, ("team-a/a-gpus",))


def test_a_copy_with_another_hash_is_downloaded_again() -> None:
    was = f"sha256:{'1' * 64}"
    snapshot = settled(cache("a", hash=was), a={"hash": was})
    assert not plan(snapshot, cache("a", hash=was), action=Action.CHANGE).downloads
    found = plan(snapshot, cache("a", hash=f"sha256:{'2' * 64}"), action=Action.CHANGE)
    assert [(one.models, one.again) for one in found.downloads] == [(("a",), True)]


def test_nodes_beyond_the_limit_of_the_group_wait_for_their_turn() -> None:
    snapshot = settled(nodes=3)
    limited = group("5Gi", download={"maxConcurrentNodes": 1})
    found = plan(snapshot, limited, cache("a"))
    assert sorted(one.waits_for_turn for one in found.downloads) == [False, True, True]


def test_what_would_happen_anyway_is_no_part_of_a_plan() -> None:
    waiting = {"state": "Pending", "cached": False}
    (before,) = settled(cache("a"), cache("b"), b=waiting).local_model_nodes
    after = {**before, "spec": {**before["spec"], "nodeReady": False}}
    assert forecast(before, after, {}).downloads == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not YAML"),
        ("a: 2026-02-30", "is not YAML"),
        ("", "has no document"),
        ("just text", "is not an object of Kubernetes"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a}", "is a Pod of v1"),
        (
            "apiVersion: serving.kserve.io/v1alpha1\nkind: LocalModelCache\nmetadata: {}",
            "has no metadata.name",
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n"
            + 2
            * (
                "- {apiVersion: serving.kserve.io/v1alpha1, kind: LocalModelCache, "
                "metadata: {name: a}}\n"
            ),
            "has LocalModelCache a twice",
        ),
    ],
)
def test_documents_that_no_plan_is_made_of(text: str, why: str) -> None:
    with pytest.raises(DocumentError, match=why):
        read_documents(text, "file.yaml")


def one_node(**changes: Any) -> KubeObject:
    (found,) = settled(cache("a"), a=changes).local_model_nodes
    return found


KEY = model_key("s3://models/a")


def test_what_an_eviction_does() -> None:
    effect = eviction_effect(one_node(), KEY)
    assert effect == EvictionEffect("node-1", KEY, ("a",), 1 << 30, 0, "", returns=False)
    mounted = eviction_effect(one_node(pods=2), KEY)
    assert mounted.hindrance == "2 pods use it: it goes when they have ended"
    assert not mounted.returns
    served = one_node(pods=2)
    served["spec"]["localModels"][0]["referenced"] = True
    assert eviction_effect(served, KEY).returns
    pinned = one_node()
    pinned["spec"]["localModels"][0]["retention"] = "Pinned"
    assert "retention: Pinned" in eviction_effect(pinned, KEY).hindrance
    keeping = one_node()
    keeping["spec"]["groups"][0]["eviction"]["policy"] = "None"
    assert "the group gpus evicts nothing" in eviction_effect(keeping, KEY).hindrance
    with pytest.raises(NoCopyError, match="node-1 has no copy of a: it is Evicted there"):
        copy_on(one_node(cached=False, state="Evicted"), KEY, "a")


def test_a_request_replaces_older_ones_and_drops_those_of_other_models() -> None:
    found = one_node()
    old = request_annotation(Operation.VERIFY, "0" * 16)
    found["metadata"]["annotations"] = {old: "2026-07-01T00:00:00Z", "of/others": "x"}
    patch = request_patch(found, Operation.EVICT, KEY, NOW)
    assert patch == {
        "metadata": {
            "annotations": {
                old: None,
                request_annotation(Operation.EVICT, KEY): "2026-08-01T12:00:00.000000Z",
            }
        }
    }
    undone = request_patch(one_node(), Operation.EVICT, KEY, None)
    assert undone["metadata"]["annotations"] == {request_annotation(Operation.EVICT, KEY): None}


def test_a_request_is_later_than_what_the_agent_noted() -> None:
    assert request_time(one_node(), KEY, NOW) == NOW
    late = one_node(verifiedTime="2026-08-01T12:00:30Z")
    assert request_time(late, KEY, NOW) == NOW.replace(second=31)


def test_where_an_eviction_stands() -> None:
    noticed = one_node(state="Evicted", cached=False, reason="Requested")
    assert not eviction_progress(noticed, KEY, NOW).done
    gone = one_node(state="Evicted", cached=False, reason="Requested", diskBytes=0)
    assert eviction_progress(gone, KEY, NOW).done
    kept = one_node(reason="EvictionRequested", message="a pod uses it")
    assert eviction_progress(kept, KEY, NOW).message == "a pod uses it"
    scrubbed = one_node(verifiedTime="2026-08-01T12:05:00Z", downloadedTime="2026-08-01T11:59:59Z")
    assert not eviction_progress(scrubbed, KEY, NOW).done
    failed = one_node(
        state="Failed",
        cached=False,
        reason="ReadOnly",
        message="mount it",
        downloadedTime="2026-08-01T11:00:00Z",
    )
    assert eviction_progress(failed, KEY, NOW).message == "mount it"
    assert not eviction_progress(failed, KEY, NOW).done
    coming = one_node(state="Downloading", cached=False, reason="Referenced")
    assert eviction_progress(coming, KEY, NOW).done
    for awaited in ("AwaitingTurn", "CapacityFull", "Unreachable"):
        # What it waits for on its way back.
        away = one_node(state="Pending", cached=False, reason=awaited, downloadedTime=None)
        assert eviction_progress(away, KEY, NOW).done
    back = one_node(downloadedTime="2026-08-01T12:00:00Z")
    assert eviction_progress(back, KEY, NOW).done
    unwanted = one_node() | {"status": {"models": []}}
    assert eviction_progress(unwanted, KEY, NOW).done


def test_where_a_verification_stands() -> None:
    assert not verification_progress(one_node(), KEY, NOW).done
    done = verification_progress(one_node(verifiedTime="2026-08-01T12:00:00Z"), KEY, NOW)
    assert (done.done, done.message) == (True, "")
    damaged = one_node(state="Pending", cached=False, reason="Corrupt", message="w.bin differs")
    assert verification_progress(damaged, KEY, NOW).message == "w.bin differs"
    shared = one_node()
    (whole,) = shared["status"]["models"]
    refused = {"state": "Failed", "reason": "Corrupt", "cached": False, "message": "another hash"}
    shared["status"]["models"].append(whole | refused)
    assert not verification_progress(shared, KEY, NOW).done


def test_pods_are_found_by_the_claims_of_the_caches() -> None:
    def pod(name: str, namespace: str, claim: str) -> KubeObject:
        volume = {"name": "m", "persistentVolumeClaim": {"claimName": claim}}
        return {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"volumes": [{"name": "x"}, volume]},
        }

    pods = [pod("p", "team-a", "a-gpus"), pod("q", "team-b", "a-gpus"), pod("r", "team-a", "z")]
    assert pods_of_claims(pods, [cache("a")]) == ["team-a/p", "team-b/q"]
    assert pods_of_claims(pods, [cache("a", namespace="team-a")]) == ["team-a/p"]
