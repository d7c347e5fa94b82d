"""Objects that were stored before our CRDs had their limits stop nobody, and can go."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from crds.base import API_VERSION
from deploy.kube.kinds import CACHES, CLAIMS, GROUPS, LOCAL_MODEL_NODES, NAMESPACE_CACHES
from tests.e2e.kserve_crds import ours, replace

if TYPE_CHECKING:
    from deploy.kube.kinds import Kind, KubeObject
    from tests.e2e.world import World

SPACE = "before"
LONG = "before-" + "x" * 62
KINDS = ("localmodelcaches", "localmodelnamespacecaches", "localmodelnodegroups")
LIMITS = frozenset(
    {
        "enum",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "pattern",
        "x-kubernetes-validations",
    }
)


def _without_limits(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_limits(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        # A property of that name is none.
        key: {name: _without_limits(part) for name, part in value.items()}
        if key == "properties"
        else _without_limits(value)
        for key, value in schema.items()
        if key not in LIMITS or key == "properties"
    }


def _loose(plural: str) -> KubeObject:
    crd = ours(plural)
    (version,) = crd["spec"]["versions"]
    version["schema"]["openAPIV3Schema"] = _without_limits(version["schema"]["openAPIV3Schema"])
    return crd


def _cache(name: str, uri: str, namespace: str = "", **spec: Any) -> KubeObject:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelNamespaceCache" if namespace else "LocalModelCache",
        "metadata": metadata,
        "spec": {
            field: value
            for field, value in (
                {"sourceModelUri": uri, "modelSize": "1Mi", "nodeGroup": "before"} | spec
            ).items()
            if value is not None
        },
    }


def test_objects_that_outlive_the_limits_of_their_crds(world: World) -> None:
    uri, long_uri, new = (world.http.put(f"{name}.bin", b"m" * 1000) for name in ("g", "l", "n"))
    world.node("node-1", "before")
    world.namespace(SPACE, models=SPACE)
    bad = {
        "size": _cache("size", "http://h/size", SPACE, modelSize="1e100"),
        "uri": _cache("uri", "http://h/" + "u" * 3000, SPACE),
        "claim": _cache("claim", "http://h/claim", SPACE, nodeGroup=None, pvcRef="shared-models"),
        "group": _cache("group", "http://h/group", SPACE, nodeGroup="g" * 69),
        "rules": _cache(
            "rules",
            "htps://h/rules",
            SPACE,
            nodeGroups=["before"],
            imagePullSecrets=[{"name": "registry"}],
        ),
        "parameters": _cache(
            "parameters",
            "http://h/parameters",
            SPACE,
            storage={"key": "k", "parameters": {str(n): "p" * 45_000 for n in range(20)}},
        ),
    }
    expected = {
        "size": "InvalidSpec",
        "uri": "InvalidSpec",
        "claim": "ImportedByKServe",
        "group": "NodeGroupNotFound",
        "rules": "DownloadFailed",
        "parameters": "GroupTooLarge",
    }
    with ExitStack() as undone:
        for plural in KINDS:
            replace(world.api, _loose(plural))
            undone.callback(replace, world.api, ours(plural))
        world.until(lambda: _takes(world, bad["size"]), "the limits to be gone")
        for obj in bad.values():
            world.make(obj)
        world.make(_cache(LONG, long_uri, namespaceSelector={"matchLabels": {"models": SPACE}}))
        world.group(LONG, "before")
        world.cache("before-in-long", uri, LONG)
    world.until(lambda: not _takes(world, _cache("c", uri, SPACE, modelSize="1e100")), "limits")

    # All others go on, and what comes new.
    world.group("before")
    world.cache("before-good", new, "before")
    world.wait_ready("before-good", 1)
    world.wait_ready("before-in-long", 1)
    world.wait_ready(LONG, 1)
    world.until(
        lambda: world.find(CLAIMS, f"{LONG}-before", SPACE), "the claim of a name that is no label"
    )
    assert len(world.api.get(LOCAL_MODEL_NODES, "node-1")["spec"]["groups"]) >= 2
    for name, reason in expected.items():
        _wait_reason(world, name, reason)
    listed = world.api.get(GROUPS, "before")["status"]["rejected"]
    assert {one["name"] for one in listed} >= {"size", "uri", "parameters"}

    # They can be changed, as far as it concerns no limit, and deleted.
    everything: list[tuple[Kind, str, str]] = [
        *((NAMESPACE_CACHES, name, SPACE) for name in bad),
        (CACHES, LONG, ""),
        (CACHES, "before-in-long", ""),
        (CACHES, "before-good", ""),
        (GROUPS, LONG, ""),
        (GROUPS, "before", ""),
    ]
    for resource, name, namespace in everything:
        world.api.patch(resource, name, {"metadata": {"labels": {"seen": "yes"}}}, namespace)
        world.delete(resource, name, namespace)
        _wait_gone(world, resource, name, namespace)
    with pytest.raises(Exception, match="at most 63 characters"):
        world.make(_cache(LONG, uri))


def _wait_reason(world: World, name: str, reason: str) -> None:
    world.until(lambda: _ready(world, name) == reason, f"{name} to be {reason}")


def _wait_gone(world: World, resource: Kind, name: str, namespace: str) -> None:
    world.until(lambda: not world.find(resource, name, namespace), f"{name} to go", 90)


def _ready(world: World, name: str) -> str:
    found = world.find(NAMESPACE_CACHES, name, SPACE) or {}
    told = found.get("status", {}).get("conditions", ())
    return next((one["reason"] for one in told if one["type"] == "Ready"), "")


def _takes(world: World, obj: KubeObject) -> bool:
    try:
        world.api.create(obj, dry_run=True)
    except Exception:  # noqa: BLE001 - whatever the server says no with
        return False
    return True
