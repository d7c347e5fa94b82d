from __future__ import annotations

from deploy.kube import meta
from deploy.local.standin import objects


def test_equality_minds_types() -> None:
    assert objects.same({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]})
    assert not objects.same({"a": 1}, {"a": 1.0})
    assert not objects.same({"a": 1}, {"a": True})
    assert not objects.same({"a": None}, {})
    assert not objects.same([1], [1, 2])
    assert not objects.same(None, {})


def test_keys_are_names_or_namespace_and_name() -> None:
    found: objects.ObjectMap = {"Thing.v1": {}}
    cluster = {"apiVersion": "x.dev/v1", "kind": "Other", "metadata": {"name": "a"}}
    inside = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "n"}}
    objects.insert(found, cluster)
    objects.insert(found, inside)
    assert found == {"Thing.v1": {"n/a": inside}, "Other.x.dev/v1": {"a": cluster}}


def test_the_controller_is_one_of_the_owners() -> None:
    owners = [{"uid": "1"}, {"uid": "2", "controller": True}]
    assert meta.controller_of({"metadata": {"ownerReferences": owners}}) == owners[1]
    assert meta.controller_of({"metadata": {"ownerReferences": owners[:1]}}) is None
