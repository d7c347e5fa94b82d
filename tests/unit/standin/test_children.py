from __future__ import annotations

from typing import Any

import pytest

from deploy.local.standin import children
from deploy.local.standin.children import Applied, Claim
from deploy.local.standin.errors import SyncError

PARENT: dict[str, Any] = {
    "apiVersion": "x.dev/v1",
    "kind": "Parent",
    "metadata": {"name": "p", "uid": "1", "namespace": "ns"},
}
DELETING = {**PARENT, "metadata": {**PARENT["metadata"], "deletionTimestamp": "now"}}


def child(
    owner: str | None = None, label: str | None = None, *, deleting: bool = False
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "c"}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    if label:
        metadata["labels"] = {"controller-uid": label}
    if deleting:
        metadata["deletionTimestamp"] = "now"
    return {"apiVersion": "v1", "kind": "Child", "metadata": metadata}


@pytest.mark.parametrize(
    ("parent", "obj", "expected"),
    [
        (PARENT, child("1", "1"), Claim.KEEP),
        (PARENT, child("1", "1", deleting=True), Claim.KEEP),
        (DELETING, child("1", "1"), Claim.KEEP),
        (PARENT, child("1"), Claim.RELEASE),
        (DELETING, child("1"), Claim.IGNORE),
        (PARENT, child("2", "1"), Claim.IGNORE),
        (PARENT, child(None, "1"), Claim.ADOPT),
        (PARENT, child(None, "1", deleting=True), Claim.IGNORE),
        (DELETING, child(None, "1"), Claim.IGNORE),
        (PARENT, child(), Claim.IGNORE),
    ],
)
def test_claim(parent: dict[str, Any], obj: dict[str, Any], expected: Claim) -> None:
    assert children.claim(parent, obj) is expected


def test_desired_children_get_the_parents_namespace_unless_they_name_one() -> None:
    elsewhere = child()
    elsewhere["metadata"]["namespace"] = "other"
    assert list(children.desired_map(PARENT, [child(), elsewhere])["Child.v1"]) == [
        "ns/c",
        "other/c",
    ]
    cluster = {**PARENT, "metadata": {"name": "p", "uid": "1"}}
    assert list(children.desired_map(cluster, [child()])["Child.v1"]) == ["c"]


def test_undesired_children_are_those_that_live_and_are_not_desired() -> None:
    observed = {"a": child(), "b": child(), "c": child(deleting=True)}
    assert children.undesired(observed, {"a": child()}) == [observed["b"]]


def test_label_of_the_generated_selector() -> None:
    desired = child()
    children.label_for(PARENT, desired)
    assert desired["metadata"]["labels"] == {"controller-uid": "1"}
    with pytest.raises(SyncError, match="don't match parent selector"):
        children.label_for(PARENT, child(None, "2"))
    bad = child()
    bad["metadata"]["labels"] = {"k": 1}
    with pytest.raises(SyncError, match="invalid labels"):
        children.label_for(PARENT, bad)


def test_annotation_of_a_decorator() -> None:
    attachment = child()
    attachment["metadata"]["annotations"] = {"a": "b"}
    children.annotate_for("d", attachment)
    assert attachment["metadata"]["annotations"] == {
        "a": "b",
        "metacontroller.k8s.io/decorator-controller": "d",
    }


def test_what_is_applied_has_an_owner_and_nothing_that_servers_write() -> None:
    desired = child()
    desired["metadata"] |= {"uid": "9", "resourceVersion": "9", "managedFields": []}
    desired["metadata"]["annotations"] = {children.LAST_APPLIED_ANNOTATION: "{}"}
    desired["status"] = {"a": 1}
    sent = children.to_apply(PARENT, desired)
    reference = {
        "apiVersion": "x.dev/v1",
        "kind": "Parent",
        "name": "p",
        "uid": "1",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    assert sent == {
        "apiVersion": "v1",
        "kind": "Child",
        "metadata": {"name": "c", "ownerReferences": [reference]},
    }
    assert desired["status"] == {"a": 1}


def test_an_owner_that_the_hook_named_is_not_named_twice() -> None:
    desired = child("1")
    assert len(children.to_apply(PARENT, desired)["metadata"]["ownerReferences"]) == 1
    desired = child("other")
    assert len(children.to_apply(PARENT, desired)["metadata"]["ownerReferences"]) == 2


def stored(uid: str = "u", generation: int | None = 1, version: str = "5") -> dict[str, Any]:
    metadata: dict[str, Any] = {"uid": uid, "resourceVersion": version}
    if generation is not None:
        metadata["generation"] = generation
    return {"metadata": metadata}


@pytest.mark.parametrize(
    ("applied", "observed", "digest", "expected"),
    [
        (stored(), stored(version="6"), "d", True),  # a new status
        (stored(), stored(generation=2), "d", False),
        (stored(), stored(uid="v"), "d", False),
        (stored(), stored(), "e", False),
        (stored(generation=None), stored(generation=None), "d", True),
        (stored(generation=None), stored(generation=None, version="6"), "d", False),
    ],
)
def test_applied_holds(
    applied: dict[str, Any], observed: dict[str, Any], digest: str, expected: bool
) -> None:
    assert Applied.of("d", applied).holds(digest, observed) is expected


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert children.digest({"a": 1, "b": 2}) == children.digest({"b": 2, "a": 1})
    assert children.digest({"a": 1}) != children.digest({"a": 2})
