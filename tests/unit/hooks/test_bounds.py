"""Values that live longer than a request in the hooks are bounded: requests do not grow them."""

from __future__ import annotations

import copy
import importlib
import json
import pkgutil
from collections.abc import MutableMapping, MutableSequence, MutableSet
from datetime import UTC, datetime
from functools import _lru_cache_wrapper
from threading import Barrier, Thread
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import TypeAdapter

import crds
import hooks
from crds.base import API_VERSION
from crds.keys import model_key
from crds.quantity import parse_quantity
from crds.volumes import NodeSelectorTerm
from hooks.app import create_app
from hooks.envelope import decoder
from hooks.memo import KEPT_BYTES, Memo
from hooks.settings import Settings
from tests.fixtures import load
from tests.schemas import check_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    Object = dict[str, Any]

NOW = datetime(2026, 11, 24, 4, 0, 0, tzinfo=UTC)
CLIENT = create_app(Settings(), clock=lambda: NOW, sleep=lambda _: None).test_client()
# A gunicorn configuration, which sets the environment when it is imported.
NOT_IMPORTED = {"hooks.gunicorn_conf"}
CONTAINERS = (MutableMapping, MutableSequence, MutableSet)


def _module_values() -> Iterator[tuple[str, Any]]:
    """Each value at the top of a module of hooks and crds, and of the classes there, by name."""
    for package in (hooks, crds):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name in NOT_IMPORTED:
                continue
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                if name.startswith("__"):
                    continue
                yield f"{found.name}.{name}", value
                if isinstance(value, type) and value.__module__ == found.name:
                    for field, inner in vars(value).items():
                        if not field.startswith("__"):
                            yield f"{found.name}.{name}.{field}", inner


def test_every_cache_has_a_bound() -> None:
    values = list(_module_values())
    functions = {id(v): (n, v) for n, v in values if isinstance(v, _lru_cache_wrapper)}
    assert {id(model_key), id(parse_quantity), id(decoder)} <= functions.keys()
    for name, function in functions.values():
        assert function.cache_parameters()["maxsize"] is not None, name
    memos = {id(v): (n, v) for n, v in values if isinstance(v, Memo)}
    assert len(memos) == 2
    for name, memo in memos.values():
        assert memo._most <= KEPT_BYTES, name


def _renamed(case: str, old: str, new: str) -> Object:
    text = json.dumps(load(case).request)
    renamed: Object = json.loads(text.replace(f'"{old}"', f'"{new}"'))
    return renamed


def _sizes() -> dict[str, int]:
    return {name: len(value) for name, value in _module_values() if isinstance(value, CONTAINERS)}


def _call_with_new_names(number: int) -> None:
    name = f"other-{number}"
    group = _renamed("nodegroups/sync/all-available", "gpu", name)
    assert CLIENT.post("/nodegroups/sync", json=group).status_code == 200
    group["parent"]["spec"]["storageLimit"] = f"{number}-none"
    assert CLIENT.post("/nodegroups/sync", json=group).status_code == 200
    node = _renamed("nodes/sync/warm-labels", "gpu", name)
    assert CLIENT.post("/nodes/sync", json=node).status_code == 200
    assert CLIENT.post(f"/{name}/sync", json=node).status_code == 404
    cache = _renamed("caches/sync/claims-are-bound", "gpu", name)
    assert CLIENT.post("/caches/sync", json=cache).status_code == 200


def test_nothing_at_the_top_of_a_module_grows_with_requests() -> None:
    _call_with_new_names(0)
    before, metrics = _sizes(), CLIENT.get("/metrics").text.count("\n")
    assert before
    decoders = decoder.cache_info().currsize
    for number in range(1, 20):
        _call_with_new_names(number)
    assert _sizes() == before
    # The hook in a metric's label is a route of ours, never the path of a request.
    assert CLIENT.get("/metrics").text.count("\n") == metrics
    assert decoder.cache_info().currsize == decoders


def test_threads_that_make_the_same_value_do_not_count_it_twice() -> None:
    at_once = Barrier(4)

    def make(raw: bytes) -> bytes:
        if not at_once.broken:
            at_once.wait(60)
        return raw

    memo = Memo(make, 100)
    threads = [Thread(target=memo, args=(b"x" * 60,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    at_once.abort()
    assert memo._size == 60
    for number in range(10):
        memo(b"%060d" % number)
    assert (memo._size, len(memo._kept)) == (60, 1)


def test_quantities_that_are_refused_are_not_kept() -> None:
    before = parse_quantity.cache_info().currsize
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity("1" * 100_000)
    assert parse_quantity.cache_info().currsize == before


# Stored before the CRDs had bounds, or by KServe's own.
LONG_TERMS: Object = {
    "nodeSelectorTerms": [
        {
            "matchExpressions": [
                {
                    "key": "kubernetes.io/hostname",
                    "operator": "In",
                    "values": ["v" * 300, *(f"node-{number}" for number in range(11_000))],
                }
            ]
        },
        *({"matchFields": [{"key": "metadata.name", "operator": "Exists"}]} for _ in range(300)),
    ]
}


def _kserve_group(**volume: Any) -> Object:
    request = load("nodegroups/sync/all-available").request
    spec = request["parent"]["spec"]
    del spec["nodeSelector"]
    spec["persistentVolumeSpec"] = {
        "local": {"path": "/var/lib/localmodel"},
        "nodeAffinity": {"required": LONG_TERMS},
        **volume,
    }
    spec["persistentVolumeClaimSpec"] = {"storageClassName": "c" * 300}
    return request


def test_a_group_that_was_stored_beyond_a_bound_is_served() -> None:
    request = _kserve_group(
        accessModes=["ReadOnlyMany"] * 20, mountOptions=[f"option-{n}" for n in range(300)]
    )
    request["parent"]["spec"]["tolerations"] = [{"operator": "Exists"}] * 300
    response = CLIENT.post("/nodegroups/sync", json=request)
    assert response.status_code == 200, response.text
    answer = json.loads(response.text)
    assert answer["status"].get("rejected", []) == []
    plan = next(one for one in answer["children"] if one["kind"] == "LocalModelPlacement")
    read = TypeAdapter(list[NodeSelectorTerm]).validate_python
    assert read(plan["spec"]["nodeSelectorTerms"]) == read(LONG_TERMS["nodeSelectorTerms"])
    assert plan["spec"]["models"]
    # The API server takes the plan: its kind has no such bounds.
    check_part("LocalModelPlacement", "spec", plan["spec"])


def test_a_cache_that_was_stored_beyond_a_bound_keeps_its_copies() -> None:
    request = load("nodegroups/sync/all-available").request
    before = json.loads(CLIENT.post("/nodegroups/sync", json=request).text)
    kind = f"LocalModelCache.{API_VERSION}"
    for cache in request["related"][kind].values():
        cache["spec"]["imagePullSecrets"] = [{"name": f"s{number}"} for number in range(300)]
        cache["spec"]["storage"] = {
            "key": "k",
            "parameters": {f"p{number}": "v" * 1000 for number in range(40)},
        }
    after = json.loads(CLIENT.post("/nodegroups/sync", json=request).text)
    assert after["status"]["models"] == before["status"]["models"]
    plan = next(one for one in after["children"] if one["kind"] == "LocalModelPlacement")
    check_part("LocalModelPlacement", "spec", plan["spec"])


@pytest.mark.parametrize(
    "change",
    [
        {"storageLimit": "1" * 50_000},
        {"persistentVolumeSpec": {"local": {"path": "/" + "p" * 50_000}}},
    ],
    ids=["storageLimit", "path"],
)
def test_no_message_is_longer_than_a_condition_takes(change: Object) -> None:
    request = _kserve_group()
    request["parent"]["spec"] |= copy.deepcopy(change)
    response = CLIENT.post("/nodegroups/sync", json=request)
    assert response.status_code == 200, response.text
    check_part("LocalModelNodeGroup", "status", json.loads(response.text)["status"])
    cache = load("caches/sync/claims-are-bound").request
    cache["related"][f"LocalModelNodeGroup.{API_VERSION}"]["gpu"] = request["parent"]
    response = CLIENT.post("/caches/sync", json=cache)
    assert response.status_code == 200, response.text
    check_part("LocalModelCache", "status", json.loads(response.text)["status"])


def test_counts_of_pods_stay_what_the_crd_takes() -> None:
    """A compromised agent may report any number."""
    most = 2**31 - 1
    request = load("nodegroups/sync/pods-are-counted").request
    for node in request["related"][f"LocalModelNode.{API_VERSION}"].values():
        node["status"]["models"][0]["pods"] = most
    answer = CLIENT.post("/nodegroups/sync", json=request).get_json()
    assert answer["status"]["models"][0]["pods"] == most
    request = load("caches/sync/pods-of-two-groups").request
    for group in request["related"][f"LocalModelNodeGroup.{API_VERSION}"].values():
        group["status"]["models"][0]["pods"] = most
    answer = CLIENT.post("/caches/sync", json=request).get_json()
    assert answer["status"]["pods"] == most
