"""The work of each hook grows no faster than its request.

Work is counted in calls of functions, Python's and C's, and not by a clock: four times as many
nodes, models, caches, groups or namespaces are at most four times the calls.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from crds.keys import model_key
from hooks import nodes
from hooks.app import create_app
from hooks.exchange import Neighbours
from hooks.settings import SERVICE_KINDS_VARIABLE, WORKLOAD_KINDS_VARIABLE, Settings
from tests.unit.hooks.fleet import GROUP, START, Fleet, cache_object, kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crds.models import PlacedModel
    from crds.peers import PeerEndpoint

    Object = dict[str, Any]
    Build = Callable[[int], tuple[str, Object]]

SIZES = (20, 40, 80)
# Constant work, such as Flask's, makes the ratio smaller; sorting makes it larger.
SLACK = 1.1
LLM_SERVICES = "LLMInferenceService.serving.kserve.io/v1alpha2"
ADAPTERS = "internal.serving.kserve.io/localmodel-lora"


def _fleet(nodes: int, models: int, state: str = "Downloaded", **group: Any) -> Fleet:
    fleet = Fleet(group)
    fleet.add(*(f"model-{number:03d}" for number in range(models)))
    fleet.join(*(f"node-{number:03d}" for number in range(nodes)))
    fleet.run(4)
    for name in fleet.nodes:
        fleet.report(name, **dict.fromkeys(fleet.caches, state))
    fleet.run(4)
    return fleet


def _group_request(fleet: Fleet) -> tuple[str, Object]:
    return "/nodegroups/sync", {
        "parent": fleet.group,
        "children": {
            kind("LocalModelPlacement"): {GROUP: fleet.plan},
            "PersistentVolume.v1": {},
        },
        "related": {
            kind("LocalModelCache"): fleet.caches,
            kind("LocalModelNamespaceCache"): {},
            kind("LocalModelNode"): fleet.local_nodes,
        },
        "finalizing": False,
    }


def _cache_request(fleet: Fleet, **related: Object) -> tuple[str, Object]:
    cache = min(fleet.caches.items())[1]
    return "/caches/sync", {
        "parent": cache,
        "children": {"PersistentVolume.v1": {}, "PersistentVolumeClaim.v1": {}},
        "related": {kind("LocalModelNodeGroup"): {GROUP: fleet.group}, **related},
        "finalizing": False,
    }


def _node_request(fleet: Fleet, plans: dict[str, Object] | None = None) -> tuple[str, Object]:
    name = min(fleet.nodes)
    return "/nodes/sync", {
        "object": fleet.nodes[name],
        "attachments": {kind("LocalModelNode"): {name: fleet.local_nodes[name]}},
        "related": {kind("LocalModelPlacement"): plans or {GROUP: fleet.plan}},
        "finalizing": False,
    }


def group_by_nodes(n: int) -> tuple[str, Object]:
    return _group_request(_fleet(n, 5))


def group_by_models(n: int) -> tuple[str, Object]:
    return _group_request(_fleet(5, n))


def group_by_failed_models(n: int) -> tuple[str, Object]:
    return _group_request(_fleet(5, n, "Failed"))


def group_by_waiting_nodes(n: int) -> tuple[str, Object]:
    fleet = Fleet({"download": {"maxConcurrentNodes": 2}})
    fleet.add("llama", "qwen")
    fleet.join(*(f"node-{number:03d}" for number in range(n)))
    fleet.run(4)
    fleet.answer()
    return _group_request(fleet)


def _peers_fleet(n: int) -> Fleet:
    fleet = _fleet(n, 5, download={"peers": "Enabled"})
    for number, local in enumerate(fleet.local_nodes.values()):
        local["status"]["peer"] = {"address": f"10.0.0.{number}:9", "fingerprint": "a" * 64}
        for model in local["status"]["models"]:
            model["manifestHash"] = f"sha256:{'1' * 64}"
    fleet.run(4)
    return fleet


def group_by_nodes_with_peers(n: int) -> tuple[str, Object]:
    return _group_request(_peers_fleet(n))


def node_by_peers(n: int) -> tuple[str, Object]:
    return _node_request(_peers_fleet(n))


def new_group_by_models(n: int) -> tuple[str, Object]:
    fleet = _fleet(5, n)
    fleet.group["status"] = {"observedGeneration": -1}
    return _group_request(fleet)


def group_without_eviction_by_models(n: int) -> tuple[str, Object]:
    return _group_request(_fleet(3, n, eviction={"policy": "None"}, storageLimit="10Gi"))


def group_by_caches_of_others(n: int) -> tuple[str, Object]:
    fleet = _fleet(3, 3)
    others = [f"other-{number}" for number in range(n)]
    fleet.add(*others, nodeGroup="cpu")
    return _group_request(fleet)


def group_by_namespace_caches_of_one_uri(n: int) -> tuple[str, Object]:
    path, request = _group_request(_fleet(3, 1))
    shared = {}
    for number in range(n):
        cache = cache_object("llama", sourceModelUri="s3://models/llama")
        cache["kind"] = "LocalModelNamespaceCache"
        cache["metadata"] |= {"namespace": f"team-{number}"}
        shared[f"team-{number}/llama"] = cache
    request["related"][kind("LocalModelNamespaceCache")] = shared
    return path, request


def group_by_copies_of_one_uri(n: int) -> tuple[str, Object]:
    path, request = group_by_namespace_caches_of_one_uri(n)
    reports = [
        {
            "name": "llama",
            "namespace": f"team-{number}",
            "key": model_key("s3://models/llama"),
            "state": "Downloaded",
            "cached": True,
        }
        for number in range(n)
    ]
    for node in request["related"][kind("LocalModelNode")].values():
        node["status"]["models"] = reports
    return path, request


def finalized_group_by_nodes(n: int) -> tuple[str, Object]:
    _, request = _group_request(_fleet(n, 3))
    request["parent"]["metadata"]["deletionTimestamp"] = "2026-11-24T04:00:00Z"
    return "/nodegroups/finalize", request | {"finalizing": True}


def node_by_models(n: int) -> tuple[str, Object]:
    return _node_request(_fleet(1, n))


def node_by_plans(n: int) -> tuple[str, Object]:
    fleet = _fleet(1, 3)
    assert fleet.plan is not None
    plans = {
        f"gpu-{number}": fleet.plan | {"metadata": {"name": f"gpu-{number}"}} for number in range(n)
    }
    return _node_request(fleet, plans)


def node_without_plans_by_models(n: int) -> tuple[str, Object]:
    path, request = _node_request(_fleet(1, n))
    request["related"][kind("LocalModelPlacement")] = {}
    return path, request


def cache_by_nodes(n: int) -> tuple[str, Object]:
    return _cache_request(_fleet(n, 2))


def cache_by_models_of_its_group(n: int) -> tuple[str, Object]:
    return _cache_request(_fleet(2, n))


def cache_by_groups(n: int) -> tuple[str, Object]:
    fleet = _fleet(3, 1)
    names = [f"gpu-{number}" for number in range(n)]
    path, request = _cache_request(fleet)
    del request["parent"]["spec"]["nodeGroup"]
    request["parent"]["spec"]["nodeGroups"] = names
    request["related"][kind("LocalModelNodeGroup")] = {
        name: fleet.group | {"metadata": fleet.group["metadata"] | {"name": name}} for name in names
    }
    return path, request


def cache_by_namespaces(n: int) -> tuple[str, Object]:
    namespaces = {f"team-{number}": {"metadata": {"name": f"team-{number}"}} for number in range(n)}
    path, request = _cache_request(_fleet(2, 1), **{"Namespace.v1": namespaces})
    request["parent"]["spec"]["namespaceSelector"] = {}
    return path, request


def cache_by_services(n: int) -> tuple[str, Object]:
    services = {
        f"team-{number}/chat": {
            "metadata": {
                "name": "chat",
                "namespace": f"team-{number}",
                "annotations": {ADAPTERS: json.dumps({"sql": {"cache": "model-000"}})},
            }
        }
        for number in range(n)
    }
    related = {LLM_SERVICES: services, "PersistentVolumeClaim.v1": {}}
    return _cache_request(_fleet(2, 1), **related)


def cache_by_workloads(n: int) -> tuple[str, Object]:
    annotations = {"serving.kserve.io/nodegroup": "gpu"}
    template = {"metadata": {"annotations": annotations}, "spec": {"containers": []}}
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "controller": True}
    jobs = {
        f"team-{number}/batch": {
            "metadata": {
                "name": "batch",
                "namespace": f"team-{number}",
                "ownerReferences": [owner | {"uid": "u"}],
            },
            "spec": {"template": template},
        }
        for number in range(n)
    }
    own = {
        f"team-{number}/model-000": {
            "kind": "LocalModelNamespaceCache",
            "apiVersion": "serving.kserve.io/v1alpha1",
            "metadata": {"name": "model-000", "namespace": f"team-{number}"},
            "spec": {"sourceModelUri": "s3://a/b", "modelSize": "1Gi", "nodeGroup": "gpu"},
            "status": {"observedGeneration": 1},
        }
        for number in range(0, n, 2)
    }
    related: Object = {
        "Job.batch/v1": jobs,
        "LocalModelNamespaceCache.serving.kserve.io/v1alpha1": own,
        "PersistentVolumeClaim.v1": {},
    }
    return _cache_request(_fleet(2, 1), **related)


def cache_by_adapters_and_groups(n: int) -> tuple[str, Object]:
    path, request = cache_by_groups(n)
    entry = {"cache": "model-000", "pvcName": f"model-000-gpu-{n - 1}"}
    adapters = json.dumps({f"adapter-{number}": entry for number in range(n)})
    metadata = {"name": "chat", "namespace": "team-a", "annotations": {ADAPTERS: adapters}}
    services = {"team-a/chat": {"metadata": metadata}}
    request["related"] |= {LLM_SERVICES: services, "PersistentVolumeClaim.v1": {}}
    return path, request


def finalized_cache_by_claims(n: int) -> tuple[str, Object]:
    _, request = _cache_request(_fleet(2, 1))
    request["parent"]["metadata"]["deletionTimestamp"] = "2026-11-24T04:00:00Z"
    claims = {f"team-{number}/llama-gpu": {"kind": "PersistentVolumeClaim"} for number in range(n)}
    request["children"]["PersistentVolumeClaim.v1"] = claims
    return "/caches/finalize", request | {"finalizing": True}


def _calls(path: str, request: Object) -> int:
    """Number of function calls while a hook answers. A first call before excludes imports."""
    kinds = LLM_SERVICES if LLM_SERVICES in request.get("related", {}) else ""
    workloads = "Job.batch/v1" if "Job.batch/v1" in request.get("related", {}) else ""
    settings = Settings.from_environment(
        {SERVICE_KINDS_VARIABLE: kinds, WORKLOAD_KINDS_VARIABLE: workloads}
    )
    client = create_app(settings, clock=lambda: START, sleep=lambda _seconds: None).test_client()
    warm, body = json.dumps(request | {"controller": {}}), json.dumps(request)
    assert client.post(path, data=warm).status_code == 200
    counted = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        response = client.post(path, data=body)
    finally:
        sys.setprofile(None)
    assert response.status_code == 200, response.text
    return counted


@pytest.mark.parametrize(
    "build",
    [
        group_by_nodes,
        group_by_models,
        group_by_failed_models,
        group_by_waiting_nodes,
        group_by_nodes_with_peers,
        node_by_peers,
        new_group_by_models,
        group_without_eviction_by_models,
        group_by_caches_of_others,
        group_by_namespace_caches_of_one_uri,
        group_by_copies_of_one_uri,
        finalized_group_by_nodes,
        node_by_models,
        node_by_plans,
        node_without_plans_by_models,
        cache_by_nodes,
        cache_by_models_of_its_group,
        cache_by_groups,
        cache_by_namespaces,
        cache_by_services,
        cache_by_workloads,
        cache_by_adapters_and_groups,
        finalized_cache_by_claims,
    ],
    ids=lambda build: build.__name__,
)
@pytest.mark.timeout(60)  # answers for clusters of several sizes
def test_work_grows_no_faster_than_its_input(build: Build) -> None:
    small, middle, large = (_calls(*build(size)) for size in SIZES)
    assert middle <= 2 * SLACK * small
    assert large <= 4 * SLACK * small
    # Check each step too: constant work can hide a quadratic part.
    assert large - middle <= 2 * SLACK * (middle - small) + 20


@pytest.mark.parametrize("hook", ["nodes", "caches", "nodegroups"])
def test_customize_does_not_depend_on_the_size(hook: str) -> None:
    def calls(size: int) -> int:
        fleet = _fleet(size, 2)
        fleet.sync_caches()
        parent = {
            "nodes": min(fleet.nodes.items())[1],
            "caches": min(fleet.caches.items())[1],
            "nodegroups": fleet.group,
        }[hook]
        return _calls(f"/{hook}/customize", {"parent": parent})

    assert calls(80) <= SLACK * calls(20)


def test_a_plan_is_made_json_once_for_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    entry = nodes._entry

    def counted(model: PlacedModel, group: str) -> object:
        made.append(model.model_name)
        return entry(model, group)

    monkeypatch.setattr(nodes, "_entry", counted)
    fleet = Fleet()
    fleet.add(*(f"once-{number}" for number in range(7)))
    fleet.join(*(f"node-{number}" for number in range(30)))
    fleet.sync()
    assert fleet.calls["/nodes/sync"] == 30
    assert len(made) == 7


def test_the_neighbours_of_a_plan_are_found_once_for_all_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []

    def counted(endpoints: Sequence[PeerEndpoint]) -> Neighbours:
        made.append(len(endpoints))
        return Neighbours(endpoints)

    fleet = _peers_fleet(40)
    assert fleet.plan is not None
    # The plan of another test must not be known already.
    fleet.plan["spec"]["peers"][0]["zone"] = "found-once"
    monkeypatch.setattr(nodes, "Neighbours", counted)
    for name in fleet.nodes:
        fleet.sync_node(name)
    assert made == [40]
