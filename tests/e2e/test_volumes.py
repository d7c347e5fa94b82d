"""Claims and volumes, bound by the real volume binder beside a default StorageClass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from crds.base import API_VERSION
from crds.keys import model_key
from deploy.kube.errors import ApiError
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    GROUPS,
    NAMESPACE_CACHES,
    NAMESPACES,
    NODES,
    VOLUMES,
)
from hooks.naming import member_label, volume_name
from tests.e2e.world import World, an_object

if TYPE_CHECKING:
    from deploy.kube.kinds import Kind, KubeObject


def _phase(world: World, namespace: str, claim: str) -> str:
    found = world.find(CLAIMS, claim, namespace) or {}
    return str(found.get("status", {}).get("phase", ""))


def _wait_bound(world: World, namespace: str, claim: str) -> None:
    world.until(
        lambda: _phase(world, namespace, claim) == "Bound", f"{namespace}/{claim} to be bound"
    )


def _setup(world: World, name: str) -> str:
    uri = world.http.put(f"{name}.bin", name.encode())
    world.node("node-1", name)
    world.group(name)
    return uri


def test_each_selected_namespace_gets_a_claim_that_binds(world: World) -> None:
    uri = _setup(world, "vols")
    world.namespace("vols-a", vols="yes")
    world.namespace("vols-b", vols="yes")
    world.namespace("vols-c")
    world.cache("vols", uri, "vols", namespaceSelector={"matchLabels": {"vols": "yes"}})
    for namespace in ("vols-a", "vols-b"):
        _wait_bound(world, namespace, "vols-vols")
    assert world.find(CLAIMS, "vols-vols", "vols-c") is None

    name = volume_name("vols", "vols", "vols-a")
    volume = world.api.get(VOLUMES, name)
    # The claim shows its own model and nothing else.
    path = f"/var/lib/localmodel/volumes/{model_key(uri)}"
    assert volume["spec"]["local"]["path"] == path
    assert volume["spec"]["mountOptions"] == ["ro"]
    # The API server leaves an empty class of a volume out, and keeps that of a claim.
    assert "storageClassName" not in volume["spec"]
    assert volume["metadata"]["ownerReferences"][0]["kind"] == "LocalModelCache"
    claim = world.api.get(CLAIMS, "vols-vols", "vols-a")
    assert claim["spec"]["storageClassName"] == ""
    assert claim["spec"]["volumeName"] == name

    # A namespace that is no longer selected loses its claim, and gets one again.
    world.namespace("vols-a", vols="no")
    world.until(lambda: not world.find(VOLUMES, name), "the volume to go")
    assert world.find(CLAIMS, "vols-vols", "vols-a") is None
    world.namespace("vols-a", vols="yes")
    _wait_bound(world, "vols-a", "vols-vols")

    world.remove_caches("vols")
    assert not [v for v in world.api.list(VOLUMES) if "vols" in v["metadata"]["name"]]
    assert not [c for c in world.api.list(CLAIMS) if c["metadata"]["name"] == "vols-vols"]


@pytest.mark.parametrize("resource", [CACHES, NAMESPACE_CACHES], ids=lambda kind: kind.plural)
def test_a_claim_that_shows_all_models_stays_until_it_is_deleted(
    world: World, resource: Kind
) -> None:
    namespaced = resource is NAMESPACE_CACHES
    name = "older-own" if namespaced else "older"
    uri = _setup(world, name)
    world.namespace(name, older=name)
    volume = volume_name(name, name, name)
    selector = {"matchExpressions": [{"key": name, "operator": "In", "values": ["yes"]}]}
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadOnlyMany"],
        "local": {"path": "/var/lib/localmodel"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [selector]}},
        "mountOptions": ["ro"],
        "persistentVolumeReclaimPolicy": "Retain",
    }
    claim = f"{name}-{name}"
    ref = {"kind": "PersistentVolumeClaim", "namespace": name, "name": claim}
    world.make(an_object(VOLUMES, volume, spec=spec | {"claimRef": ref}))
    asks = {
        "accessModes": ["ReadOnlyMany"],
        "storageClassName": "",
        "volumeName": volume,
        "resources": {"requests": {"storage": "1Mi"}},
    }
    world.make(an_object(CLAIMS, claim, name, spec=asks))
    _wait_bound(world, name, claim)
    where = name if namespaced else ""
    selects = {} if namespaced else {"namespaceSelector": {"matchLabels": {"older": name}}}
    cache = {"sourceModelUri": uri, "modelSize": "1Mi", "nodeGroup": name}
    world.make(an_object(resource, name, where, spec=cache | selects))

    def message() -> str:
        """That of ClaimsBound, while it is True."""
        found = world.find(resource, name, where) or {}
        return next(
            (
                one["message"]
                for one in found.get("status", {}).get("conditions", ())
                if one["type"] == "ClaimsBound" and one["reason"] == "AllBound"
            ),
            "",
        )

    world.until(lambda: "can read all models of their node" in message(), "the claim to be named")

    def owner() -> object:
        """The volume's: an older version has made it, so it is the group's or the cache's."""
        return (world.find(VOLUMES, volume) or {})["metadata"].get("ownerReferences")

    # A group takes a volume that is there over by itself, maybe later than the cache speaks of it.
    world.until(owner, "the volume to have an owner", seconds=90)
    # What the message says to do.
    world.delete(CLAIMS, claim, name)

    def path() -> str:
        found = world.find(VOLUMES, volume) or {"spec": {}}
        return str(found["spec"].get("local", {}).get("path"))

    own = f"/var/lib/localmodel/volumes/{model_key(uri)}"
    world.until(lambda: path() == own, "a volume of the model alone", seconds=90)
    world.until(lambda: message() == f"{name}/{claim} can be mounted", "the claim to be bound", 90)
    world.delete(resource, name, where)
    world.until(lambda: not world.find(resource, name, where), "the cache to go")
    world.until(lambda: not world.find(VOLUMES, volume), "its volume to go")


def test_a_claim_deleted_by_hand_comes_back_and_binds(world: World) -> None:
    uri = _setup(world, "rebind")
    world.namespace("rebind", rebind="yes")
    world.cache("rebind", uri, "rebind", namespaceSelector={"matchLabels": {"rebind": "yes"}})
    _wait_bound(world, "rebind", "rebind-rebind")
    before = world.api.get(CLAIMS, "rebind-rebind", "rebind")["metadata"]["uid"]
    world.delete(CLAIMS, "rebind-rebind", "rebind")

    def bound_again() -> bool:
        claim = world.find(CLAIMS, "rebind-rebind", "rebind")
        fresh = claim is not None and claim["metadata"]["uid"] != before
        return fresh and _phase(world, "rebind", "rebind-rebind") == "Bound"

    world.until(bound_again, "the new claim to be bound", seconds=90)
    world.remove_caches("rebind")


def test_a_group_whose_selector_changed_says_that_its_volumes_are_old(world: World) -> None:
    uri = _setup(world, "moved")
    world.node("node-2", "moved-to")
    world.namespace("moved", moved="yes")
    world.cache("moved", uri, "moved", namespaceSelector={"matchLabels": {"moved": "yes"}})
    _wait_bound(world, "moved", "moved-moved")
    world.wait_condition("moved", "AllBound", kind="ClaimsBound")

    world.group("moved", "moved-to")
    condition = world.wait_condition("moved", "VolumeOutdated", kind="ClaimsBound")
    assert "moved/moved-moved" in condition["message"]
    world.until(lambda: world.published("node-2", uri), "the model on the new node")

    # What the message says to do.
    world.delete(CLAIMS, "moved-moved", "moved")

    def leads_to_the_new_nodes() -> bool:
        volume = world.find(VOLUMES, "moved-moved-moved") or {"spec": {}}
        return "moved-to" in str(volume["spec"].get("nodeAffinity"))

    world.until(leads_to_the_new_nodes, "a volume of the new selector", seconds=90)
    world.wait_condition("moved", "AllBound", kind="ClaimsBound")
    world.remove_caches("moved")


def test_a_namespace_that_goes_takes_its_claim_and_leaves_no_volume(world: World) -> None:
    uri = _setup(world, "leaving")
    world.namespace("leaving", leaving="yes")
    world.cache("leaving", uri, "leaving", namespaceSelector={"matchLabels": {"leaving": "yes"}})
    _wait_bound(world, "leaving", "leaving-leaving")
    world.delete(NAMESPACES, "leaving")
    world.until(lambda: not world.find(NAMESPACES, "leaving"), "the namespace to go")
    world.until(lambda: not world.find(VOLUMES, "leaving-leaving-leaving"), "its volume to go")
    world.remove_caches("leaving")


def test_a_namespace_cache_has_a_claim_in_its_own_namespace(world: World) -> None:
    uri = _setup(world, "own")
    world.namespace("own")
    world.make(
        {
            "apiVersion": API_VERSION,
            "kind": "LocalModelNamespaceCache",
            "metadata": {"name": "own", "namespace": "own"},
            "spec": {"sourceModelUri": uri, "modelSize": "1Mi", "nodeGroup": "own"},
        }
    )
    _wait_bound(world, "own", "own-own")

    def ready() -> bool:
        cache = world.find(NAMESPACE_CACHES, "own", "own") or {}
        conditions = cache.get("status", {}).get("conditions", ())
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    world.until(ready, "the namespace cache to be ready")
    volume = world.api.get(VOLUMES, "own-own-own")
    assert volume["metadata"]["ownerReferences"][0]["kind"] == "LocalModelNodeGroup"
    world.delete(NAMESPACE_CACHES, "own", "own")
    world.until(lambda: not world.find(NAMESPACE_CACHES, "own", "own"), "the cache to go")
    world.until(lambda: not world.find(VOLUMES, "own-own-own"), "its volume to go")
    world.until(lambda: not world.published("node-1", uri), "its files to go")


def _own_cache(world: World, namespace: str, name: str, group: str, uri: str) -> None:
    world.make(
        {
            "apiVersion": API_VERSION,
            "kind": "LocalModelNamespaceCache",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"sourceModelUri": uri, "modelSize": "1Mi", "nodeGroup": group},
        }
    )


def test_no_claim_takes_the_volume_of_another(world: World) -> None:
    """Cache n on group vol-x in namespace c, and n on vol in x-c: KServe has one name for both."""
    world.node("node-1", "vol")
    world.group("vol-x", "vol")
    world.group("vol")
    world.namespace("c")
    world.namespace("x-c")
    first, second = world.http.put("n1.bin", b"1"), world.http.put("n2.bin", b"2")
    _own_cache(world, "c", "n", "vol-x", first)
    _wait_bound(world, "c", "n-vol-x")
    claim = world.api.get(CLAIMS, "n-vol-x", "c")
    # A tenant can make a claim of its cache's name that asks for the other's volume.
    spec = {key: claim["spec"][key] for key in ("accessModes", "resources", "volumeName")}
    world.make(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "m-vol", "namespace": "x-c"},
            "spec": spec | {"storageClassName": ""},
        }
    )
    _own_cache(world, "x-c", "n", "vol", second)
    _own_cache(world, "x-c", "m", "vol", second)
    _wait_bound(world, "x-c", "n-vol")
    # KServe's own name of the first one's volume is that of the second one's too.
    theirs = world.api.get(CLAIMS, "n-vol", "x-c")["spec"]["volumeName"]
    assert theirs != claim["spec"]["volumeName"]
    volume = world.api.get(VOLUMES, claim["spec"]["volumeName"])
    assert volume["spec"]["claimRef"]["uid"] == claim["metadata"]["uid"]
    assert _phase(world, "c", "n-vol-x") == "Bound"
    assert _phase(world, "x-c", "m-vol") != "Bound"
    for namespace, name in (("c", "n"), ("x-c", "n"), ("x-c", "m")):
        world.delete(NAMESPACE_CACHES, name, namespace)


def test_a_group_in_kserves_form(world: World) -> None:
    uri = world.http.put("kserve.bin", b"kserve")
    world.node("node-2", "kserve-form")
    world.namespace("kserve-form", kserve="yes")
    spec = {
        "storageLimit": "1Gi",
        "persistentVolumeSpec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Filesystem",
            "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "local-storage",
            "local": {"path": "/var/lib/localmodel"},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "kserve-form", "operator": "Exists"}]}
                    ]
                }
            },
        },
        "persistentVolumeClaimSpec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "local-storage",
        },
    }
    world.make(
        {
            "apiVersion": API_VERSION,
            "kind": "LocalModelNodeGroup",
            "metadata": {"name": "kserve-form"},
            "spec": spec,
        }
    )
    world.make(
        {
            "apiVersion": API_VERSION,
            "kind": "LocalModelCache",
            "metadata": {"name": "kserve-form"},
            "spec": {
                "sourceModelUri": uri,
                "modelSize": "1Mi",
                "nodeGroups": ["kserve-form"],
                "namespaceSelector": {"matchLabels": {"kserve": "yes"}},
            },
        }
    )
    world.wait_ready("kserve-form", 1)
    _wait_bound(world, "kserve-form", "kserve-form-kserve-form")

    # Volumes would point past what the agents fill.
    spec["persistentVolumeSpec"]["local"]["path"] = "/models"  # type: ignore[index]
    world.patch(GROUPS, "kserve-form", {"spec": spec})
    condition = world.wait_condition("kserve-form", "LocalPathMismatch", resource=GROUPS)
    assert "/models" in condition["message"]
    world.remove_caches("kserve-form")


def _kserve_group(world: World, name: str, terms: list[KubeObject], **template: Any) -> None:
    volume = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1073741824"},
        "local": {"path": "/var/lib/localmodel"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    spec = {
        "storageLimit": "1Gi",
        "persistentVolumeSpec": volume | template,
        "persistentVolumeClaimSpec": claim,
    }
    world.make(an_object(GROUPS, name, spec=spec))


def test_a_volume_of_a_group_that_selects_by_name_lets_no_other_node_in(world: World) -> None:
    """Kubernetes' check of a volume sees labels alone, so the nodes get one."""
    uri = world.http.put("named.bin", b"named")
    world.node("node-1", "named-all")
    world.node("node-2", "named-all")
    world.namespace("named", named="yes")

    def terms(operator: str) -> list[KubeObject]:
        name = {"key": "metadata.name", "operator": operator, "values": ["node-1"]}
        label = {"key": "named-all", "operator": "Exists", "values": []}
        return [{"matchExpressions": [label], "matchFields": [name]}]

    def labelled() -> set[str]:
        label = member_label("named")
        nodes = world.api.list(NODES)
        return {
            node["metadata"]["name"]
            for node in nodes
            if label in (node["metadata"].get("labels") or {})
        }

    _kserve_group(world, "named", terms("In"))
    world.cache("named", uri, "named", namespaceSelector={"matchLabels": {"named": "yes"}})
    world.wait_ready("named", 1)
    volume = world.wait_bound("named", "named-named")["spec"]["volumeName"]
    (term,) = world.api.get(VOLUMES, volume)["spec"]["nodeAffinity"]["required"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == [
        {"key": "named-all", "operator": "Exists"},
        {"key": member_label("named"), "operator": "Exists"},
    ]
    assert labelled() == {"node-1"}
    world.wait_condition("named", "AllBound", kind="ClaimsBound")
    # Somebody takes it off: it comes back.
    world.patch(NODES, "node-1", {"metadata": {"labels": {member_label("named"): None}}})
    world.until(lambda: labelled() == {"node-1"}, "the label to come back")

    _kserve_group(world, "named", terms("NotIn"))
    world.until(lambda: labelled() == {"node-2"}, "the labels to follow the group")
    world.wait_condition("named", "VolumeOutdated", kind="ClaimsBound")
    world.remove_caches("named")
    world.delete(GROUPS, "named")
    world.until(lambda: not labelled(), "the labels to go with the group")


@pytest.mark.parametrize(
    ("name", "terms", "template"),
    [
        (
            "dropped-values",
            [{"matchExpressions": [{"key": "dropped", "operator": "Exists", "values": []}]}],
            {},
        ),
        (
            "dropped-lists",
            [{"matchExpressions": [{"key": "dropped", "operator": "Exists"}], "matchFields": []}],
            {"mountOptions": [], "storageClassName": ""},
        ),
        (
            "dropped-path",
            [{"matchExpressions": [{"key": "dropped", "operator": "In", "values": ["yes"]}]}],
            {"local": {"path": "/var/lib/localmodel/"}},
        ),
    ],
)
def test_what_the_api_server_drops_makes_no_volume_old(
    world: World, name: str, terms: list[KubeObject], template: KubeObject
) -> None:
    uri = world.http.put(f"{name}.bin", name.encode())
    world.node("node-1", "dropped")
    world.namespace(name, dropped=name)
    _kserve_group(world, name, terms, **template)
    world.cache(name, uri, name, namespaceSelector={"matchLabels": {"dropped": name}})
    _wait_bound(world, name, f"{name}-{name}")
    world.wait_condition(name, "AllBound", kind="ClaimsBound")
    # The same terms, written in another way.
    _kserve_group(world, name, [*terms, {"matchExpressions": []}], **template)

    def seen() -> bool:
        group = world.api.get(GROUPS, name)
        seen = group["status"].get("observedGeneration") == group["metadata"]["generation"]
        return bool(seen and world.condition(GROUPS, name).get("reason") == "NodesFound")

    world.until(seen, "the group to be seen")
    world.wait_ready(name, 1)
    assert world.condition(CACHES, name, "ClaimsBound")["reason"] == "AllBound"
    world.remove_caches(name)


def test_what_kubernetes_compares_of_a_claim_and_a_volume_that_name_each_other(
    world: World,
) -> None:
    """What the hooks rest on: neither size, class nor access modes."""
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadOnlyMany"],
        "storageClassName": "one",
        "persistentVolumeReclaimPolicy": "Retain",
        "local": {"path": "/models"},
        "nodeAffinity": {
            "required": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]}
                ]
            }
        },
        "claimRef": {"namespace": "default", "name": "facts", "kind": "PersistentVolumeClaim"},
    }
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "two",
        "volumeName": "facts",
        "resources": {"requests": {"storage": "20Gi"}},
    }
    world.make(an_object(VOLUMES, "facts", spec=volume))
    world.make(an_object(CLAIMS, "facts", "default", spec=claim))
    _wait_bound(world, "default", "facts")
    change = {
        "capacity": {"storage": "2Gi"},
        "storageClassName": "three",
        "accessModes": ["ReadWriteOnce"],
        "mountOptions": ["ro"],
    }
    world.patch(VOLUMES, "facts", {"spec": change})
    now = world.api.get(VOLUMES, "facts")
    assert change.items() <= now["spec"].items()
    assert now["status"]["phase"] == "Bound"
    terms = now["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]
    with pytest.raises(ApiError, match="immutable"):
        world.patch(VOLUMES, "facts", {"spec": {"local": {"path": "/other"}}})
    terms[0]["matchExpressions"][0]["key"] = "b"
    affinity = {"required": {"nodeSelectorTerms": terms}}
    with pytest.raises(ApiError, match="immutable"):
        world.patch(VOLUMES, "facts", {"spec": {"nodeAffinity": affinity}})
    world.delete(CLAIMS, "facts", "default")
    world.delete(VOLUMES, "facts")
