from __future__ import annotations

from typing import Any

from deploy.local.standin.store import NOBODY, Store


def thing(name: str, version: str = "1", owner: str | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "resourceVersion": version}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "controller": True}]
    return {"metadata": metadata}


def test_owners_follow_the_object() -> None:
    store = Store()
    store.put(thing("a"))
    assert store.owned_by(NOBODY) == [thing("a")]
    store.put(thing("a", "2", "u"))
    assert store.owned_by(NOBODY) == []
    assert store.owned_by("u") == [thing("a", "2", "u")]
    assert store.remove(thing("a", "3", "u")) == (thing("a", "3", "u"), None)
    assert store.owned_by("u") == []
    assert store.get("", "a") is None


def test_a_relist_says_what_changed_meanwhile() -> None:
    store = Store()
    for obj in (thing("same"), thing("changed"), thing("gone")):
        store.put(obj)
    changes = store.replace([thing("same"), thing("changed", "2"), thing("new")])
    assert changes == [
        (thing("gone"), None),
        (thing("changed"), thing("changed", "2")),
        (None, thing("new")),
    ]
    assert len(store.all()) == 3
