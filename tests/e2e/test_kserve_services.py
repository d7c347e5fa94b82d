"""KServe's contract, line by line: services, volumes, configuration (docs/kserve.md)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from deploy.kube.kinds import CACHES, CLAIMS, GROUPS, NAMESPACE_CACHES, PLACEMENTS, VOLUMES
from hooks.naming import member_label, volume_name
from tests.e2e.kserve import ISVCS, LLM_ISVCS, SECONDS, KServeWorld
from tests.e2e.world import an_object

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject


def _owners(obj: KubeObject) -> list[str]:
    return [owner["kind"] for owner in obj["metadata"].get("ownerReferences", ())]


def test_a_service_gets_a_claim_of_its_groups_template(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache("tmpl", "first")
    kserve.service("tmpl-a", "chat", "tmpl")
    claim = kserve.wait_bound("tmpl-a", "tmpl-first")
    name = volume_name("tmpl", "first", "tmpl-a")
    assert claim["spec"]["volumeName"] == name
    assert claim["spec"]["storageClassName"] == "local-storage"
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
    volume = kserve.api.get(VOLUMES, name)
    assert volume["spec"]["local"]["path"] == "/models"
    assert volume["spec"]["capacity"]["storage"] == "2Gi"
    assert _owners(claim) == _owners(volume) == ["LocalModelCache"]
    # An agent that downloads by itself needs no volume and no claim to do it.
    assert kserve.find(VOLUMES, "tmpl-first-download") is None
    assert not kserve.api.list(CLAIMS, "kserve-localmodel-jobs")
    condition = kserve.wait_condition("tmpl", "AllBound", kind="ClaimsBound")
    assert condition["message"] == "tmpl-a/tmpl-first can be mounted"


def test_a_template_gives_way_where_the_namespace_refuses_it(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache("gives", "first", modelSize="3Mi")
    for namespace, most in (("gives-limit", "10Mi"), ("gives-not", "1Mi")):
        kserve.space(namespace)
        spec = {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": most}}]}
        metadata = {"name": f"most-{most.lower()}", "namespace": namespace}
        kserve.make({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": spec})
    kserve.service("gives-limit", "chat", "gives")
    claim = kserve.wait_bound("gives-limit", "gives-first")
    assert claim["spec"]["resources"]["requests"]["storage"] == "3Mi"
    kserve.wait_condition("gives", "AllBound", kind="ClaimsBound")

    kserve.service("gives-not", "chat", "gives")
    condition = kserve.wait_condition("gives", "ClaimRefused", kind="ClaimsBound")
    assert "gives-not/gives-first (LimitRange most-1mi takes at most 1Mi" in condition["message"]
    # A namespace's own cache is told the same.
    kserve.kserve_cache("given", "first", namespace="gives-not", modelSize="3Mi")

    def told() -> bool:
        conditions = kserve.status("given", "gives-not").get("conditions", ())
        return any(
            one["reason"] == "ClaimRefused" and "LimitRange most-1mi" in one["message"]
            for one in conditions
        )

    kserve.until(told, "the namespace's cache to say so", SECONDS)


def test_a_claim_goes_with_the_last_service_and_comes_again(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache("last", "first")
    kserve.service("last-a", "chat", "last")
    kserve.service("last-a", "big", "last", resource=LLM_ISVCS)
    kserve.service("last-b", "chat", "last")
    kserve.wait_users("last", "last-a/chat", "last-b/chat")
    kserve.wait_users("last", "last-a/big", field="llmInferenceServices")
    before = kserve.wait_bound("last-a", "last-first")["metadata"]["uid"]

    # A service that is gone leaves the status at once, and the claim stays for the other one.
    kserve.delete(ISVCS, "chat", "last-a")
    kserve.wait_users("last", "last-b/chat")
    assert kserve.wait_bound("last-a", "last-first")["metadata"]["uid"] == before

    kserve.delete(LLM_ISVCS, "big", "last-a")
    # Nothing is left behind that would keep the next claim of that name from binding.
    kserve.wait_gone("last-a", "last-first")
    kserve.wait_bound("last-b", "last-first")
    kserve.service("last-a", "chat", "last")
    assert kserve.wait_bound("last-a", "last-first")["metadata"]["uid"] != before


def test_a_service_that_is_being_deleted_counts_until_it_is_gone(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache("going", "first")
    service = kserve.service("going-a", "chat", "going")
    kserve.wait_bound("going-a", "going-first")
    service["metadata"]["finalizers"] = ["example.com/pods"]
    for field in ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation"):
        service["metadata"].pop(field)
    kserve.make(service)
    kserve.delete(ISVCS, "chat", "going-a")
    # Another one's coming shows that the hook has seen it.
    kserve.service("going-b", "chat", "going")
    kserve.wait_users("going", "going-a/chat", "going-b/chat")
    assert kserve.find(CLAIMS, "going-first", "going-a")

    kserve.api.patch(ISVCS, "chat", {"metadata": {"finalizers": None}}, "going-a")
    kserve.wait_gone("going-a", "going-first")
    kserve.wait_users("going", "going-b/chat")


def test_the_annotation_nodegroup_says_which_group_and_is_followed(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_group("other", "node-2")
    kserve.kserve_cache("where", "first", "other")
    kserve.service("where-a", "chat", "where")
    kserve.wait_bound("where-a", "where-first")
    assert kserve.find(CLAIMS, "where-other", "where-a") is None
    kserve.service("where-a", "chat", "where", nodegroup="other")
    kserve.wait_bound("where-a", "where-other")
    kserve.wait_gone("where-a", "where-first")
    # KServe's webhook would not have let it use this cache.
    kserve.service("where-b", "chat", "where", nodegroup="none-of-them")
    kserve.wait_users("where", "where-a/chat", "where-b/chat")
    assert not kserve.api.list(CLAIMS, "where-b")


def test_a_service_with_disable_localmodel_does_not_use_it(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache("off", "first")
    kserve.service("off-a", "chat", "off")
    kserve.wait_bound("off-a", "off-first")
    kserve.service("off-a", "chat", "off", disable_localmodel="")
    kserve.wait_gone("off-a", "off-first")
    kserve.wait_users("off")


def test_services_of_a_namespace_cache_are_its_own(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache("same", "first")
    kserve.kserve_cache("same", "first", namespace="same-a")
    kserve.service("same-a", "chat", "same", of_namespace=True)
    kserve.service("same-b", "chat", "same")
    # Another namespace's service with these labels is no user of the namespace's cache.
    kserve.service("same-c", "chat", "same", of_namespace=True)
    kserve.wait_users("same", "same-a/chat", namespace="same-a")
    kserve.wait_users("same", "same-b/chat")
    claim = kserve.wait_bound("same-a", "same-first")
    assert _owners(claim) == ["LocalModelNamespaceCache"]
    # A namespaced object cannot own a volume.
    volume = kserve.api.get(VOLUMES, volume_name("same", "first", "same-a"))
    assert _owners(volume) == ["LocalModelNodeGroup"]
    assert _owners(kserve.wait_bound("same-b", "same-first")) == ["LocalModelCache"]
    assert not kserve.api.list(CLAIMS, "same-c")

    # It moves from the namespace's cache to the other one, whose claim of that name is taken.
    kserve.service("same-a", "chat", "same")
    kserve.wait_users("same", namespace="same-a")
    kserve.wait_users("same", "same-a/chat", "same-b/chat")
    condition = kserve.wait_condition("same", "ClaimNameTaken", kind="ClaimsBound")
    assert "same-a/same-first" in condition["message"]
    assert "belongs to LocalModelNamespaceCache same" in condition["message"]
    assert (
        kserve.api.get(CLAIMS, "same-first", "same-a")["metadata"]["uid"]
        == (claim["metadata"]["uid"])
    )
    # When the other cache is gone, the claim is its own.
    kserve.delete(NAMESPACE_CACHES, "same", "same-a")

    def is_the_cluster_caches() -> bool:
        found = kserve.find(CLAIMS, "same-first", "same-a")
        return found is not None and _owners(found) == ["LocalModelCache"]

    kserve.until(is_the_cluster_caches, "the claim to be the LocalModelCache's", SECONDS)
    kserve.wait_condition("same", "AllBound", kind="ClaimsBound")


def test_a_service_that_moves_between_caches_of_its_namespace_is_followed(
    kserve: KServeWorld,
) -> None:
    kserve.kserve_group("first", "node-1")
    for cache in ("move-from", "move-to"):
        kserve.kserve_cache(cache, "first", namespace="move")
    kserve.service("move", "chat", "move-from", of_namespace=True)
    kserve.wait_users("move-from", "move/chat", namespace="move")
    kserve.service("move", "chat", "move-to", of_namespace=True)
    kserve.wait_users("move-to", "move/chat", namespace="move")
    kserve.wait_users("move-from", namespace="move")
    # What it has left may go, and what it uses may not.
    assert "move/chat" in kserve.not_deleted(NAMESPACE_CACHES, "move-to", "move")
    kserve.delete(NAMESPACE_CACHES, "move-from", "move")
    kserve.wait_gone("move", "move-from-first")


def test_claims_and_volumes_of_kserve_are_taken_over_as_they_are(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.space("took-a")
    spec: KubeObject = {"accessModes": ["ReadWriteOnce"], "storageClassName": "of-its-own"}
    volume: KubeObject = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "took-first-took-a"},
        "spec": spec
        | {
            "capacity": {"storage": "2Gi"},
            "local": {"path": "/models"},
            "nodeAffinity": kserve.api.get(GROUPS, "first")["spec"]["persistentVolumeSpec"][
                "nodeAffinity"
            ],
        },
    }
    claim: KubeObject = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "took-first", "namespace": "took-a"},
        "spec": spec
        | {
            "resources": {"requests": {"storage": "1Gi"}},
            "volumeName": "took-first-took-a",
        },
    }
    # KServe's controller creates them, so nobody else applies their fields.
    kserve.api.create(volume)
    kserve.api.create(claim)
    before = kserve.wait_bound("took-a", "took-first")
    was = kserve.api.get(VOLUMES, "took-first-took-a")

    kserve.service("took-a", "chat", "took")
    kserve.kserve_cache("took", "first")
    kserve.wait_condition("took", "AllBound", kind="ClaimsBound")
    now = kserve.api.get(CLAIMS, "took-first", "took-a")
    volume_now = kserve.api.get(VOLUMES, "took-first-took-a")
    assert _owners(now) == _owners(volume_now) == ["LocalModelCache"]
    assert now["metadata"]["uid"] == before["metadata"]["uid"]
    assert now["spec"] == before["spec"]
    assert volume_now["spec"] == was["spec"]

    # A claim that leads elsewhere is not KServe's.
    kserve.space("took-b")
    stranger = claim | {
        "metadata": {"name": "took-first", "namespace": "took-b"},
        "spec": {**claim["spec"], "volumeName": "a-disk"},
    }
    kserve.api.create(stranger)
    kserve.service("took-b", "chat", "took")
    condition = kserve.wait_condition("took", "ClaimNameTaken", kind="ClaimsBound")
    assert "took-b/took-first" in condition["message"]
    found = kserve.api.get(CLAIMS, "took-first", "took-b")
    assert _owners(found) == []
    assert found["spec"]["volumeName"] == "a-disk"


def test_volumes_that_kserve_left_are_in_nobodys_way(kserve: KServeWorld) -> None:
    """Of a group that selects by name: no volume that is there can be made to ask for a label."""
    kserve.kserve_group("first", "node-1")
    spec: KubeObject = {"accessModes": ["ReadWriteOnce"], "storageClassName": "local-storage"}

    def leave(namespace: str, node: str) -> None:
        """A claim and its volume, as KServe's controller makes them."""
        kserve.space(namespace)
        name = f"rest-first-{namespace}"
        term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        volume = {
            "capacity": {"storage": "2Gi"},
            "local": {"path": "/models"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        }
        request = {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": name}
        kserve.api.create(an_object(VOLUMES, name, spec=spec | volume))
        claim = an_object(CLAIMS, "rest-first", namespace, spec=spec | request)
        kserve.api.create(claim)
        kserve.wait_bound(namespace, "rest-first")

    def phase(volume: str) -> str:
        return str(kserve.api.get(VOLUMES, volume)["status"]["phase"])

    # The last service of a namespace went: KServe's controller deletes the claim and no more.
    leave("gone", "node-1")
    kserve.delete(CLAIMS, "rest-first", "gone")
    kserve.until(lambda: phase("rest-first-gone") == "Released", "the volume to be released")
    # And one whose group had other nodes when it was made.
    leave("former", "node-2")
    was = kserve.api.get(VOLUMES, "rest-first-former")["spec"]

    kserve.service("gone", "chat", "rest")
    kserve.kserve_cache("rest", "first")
    claim = kserve.wait_bound("gone", "rest-first")
    kserve.wait_condition("rest", "AllBound", kind="ClaimsBound")
    volume = kserve.api.get(VOLUMES, claim["spec"]["volumeName"])
    assert member_label("first") in str(volume["spec"]["nodeAffinity"])

    kserve.service("former", "chat", "rest")
    condition = kserve.wait_condition("rest", "VolumeOutdated", kind="ClaimsBound")
    assert "former/rest-first" in condition["message"]
    assert kserve.api.get(VOLUMES, "rest-first-former")["spec"] == was


def test_a_model_that_a_service_uses_is_referenced_in_the_plan(kserve: KServeWorld) -> None:
    kserve.kserve_group("plan", "node-3")
    kserve.kserve_cache("plan", "plan")
    kserve.service("plan-a", "chat", "plan")

    def referenced() -> list[bool]:
        plan = kserve.find(PLACEMENTS, "plan") or {"spec": {}}
        return [model.get("referenced", False) for model in plan["spec"].get("models", ())]

    kserve.until(lambda: referenced() == [True], "the plan to say so", SECONDS)
    kserve.delete(ISVCS, "chat", "plan-a")
    kserve.until(lambda: referenced() == [False], "the plan to say no", SECONDS)


def test_disable_volume_management(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache("hands", "first")
    kserve.service("hands-a", "chat", "hands")
    kserve.wait_bound("hands-a", "hands-first")
    text = kserve.configure(json.dumps({"enabled": True, "disableVolumeManagement": True}))
    try:
        kserve.wait_condition("hands", "VolumesNotManaged", kind="ClaimsBound")
        kserve.service("hands-b", "chat", "hands")
        kserve.kserve_cache("hands", "first", namespace="hands-c")
        # KServe lists no services then, and so lets a cache be deleted that they use.
        kserve.wait_users("hands", "hands-a/chat", "hands-b/chat")
        kserve.until(
            lambda: kserve.status("hands", "hands-c").get("conditions"), "the other cache's status"
        )
        for namespace in ("hands-b", "hands-c"):
            assert not kserve.api.list(CLAIMS, namespace)
            assert kserve.find(VOLUMES, volume_name("hands", "first", namespace)) is None
        # What was made before stays while it is used.
        assert kserve.wait_bound("hands-a", "hands-first")

        # What cannot be read changes nothing.
        kserve.configure("{")
        kserve.service("hands-d", "chat", "hands")
    finally:
        kserve.configure(text)
    for namespace in ("hands-b", "hands-c", "hands-d"):
        kserve.wait_bound(namespace, "hands-first")
    kserve.wait_condition("hands", "AllBound", kind="ClaimsBound")


def test_deleting_a_cache_takes_its_claims_and_volumes(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache("clean", "first")
    kserve.service("clean-a", "chat", "clean")
    kserve.wait_bound("clean-a", "clean-first")
    kserve.delete(ISVCS, "chat", "clean-a")
    kserve.wait_users("clean")
    kserve.delete(CACHES, "clean")
    kserve.until(lambda: not kserve.find(CACHES, "clean"), "the cache to go", SECONDS)
    kserve.wait_gone("clean-a", "clean-first")
