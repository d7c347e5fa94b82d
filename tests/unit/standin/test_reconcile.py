from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from deploy.kube.errors import (
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
)
from deploy.kube.kinds import Kind
from deploy.local.standin.children import ApplyCache
from deploy.local.standin.errors import SyncError
from deploy.local.standin.reconcile import ChildReconciler, Methods

if TYPE_CHECKING:
    from deploy.local.standin.discovery import Discovery
    from deploy.local.standin.writes import Writer

PARENT: dict[str, Any] = {"apiVersion": "v1", "kind": "P", "metadata": {"name": "p", "uid": "1"}}
CONFLICT = ConflictError("applying", "newer", 409)
NOT_FOUND = NotFoundError("deleting", "gone", 404)
INVALID = InvalidError("applying", "bad", 422)
IN_PLACE: Methods = {("", "C"): "InPlace"}
RECREATE: Methods = {("", "C"): "Recreate"}


class FakeDiscovery:
    def kind(self, api_version: str, kind: str) -> Kind:
        return Kind(api_version, "cs", kind)


class FakeWriter:
    """Stores applied objects; raises the errors that a test sets."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.fail: dict[str, ApiError] = {}
        self.stored: dict[str, dict[str, Any]] = {}

    def _record(self, verb: str, obj: dict[str, Any]) -> str:
        name = obj["metadata"]["name"]
        self.calls.append((verb, name))
        if name in self.fail:
            raise self.fail[name]
        return str(name)

    def apply(self, obj: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        name = self._record("try" if dry_run else "apply", obj)
        old = self.stored.get(name, {"spec": None, "metadata": {"generation": 0}})
        generation = old["metadata"]["generation"] + (old["spec"] != obj["spec"])
        server = {"uid": f"uid of {name}", "generation": generation}
        result = {**obj, "metadata": {**obj["metadata"], **server}}
        if not dry_run:
            self.stored[name] = result
        return result

    def delete(self, resource: Kind, obj: dict[str, Any]) -> None:
        assert resource
        self.stored.pop(self._record("delete", obj), None)


class Setup:
    def __init__(self, methods: Methods) -> None:
        self.writer = FakeWriter()
        self.methods = methods
        self.reconciler = ChildReconciler(
            cast("Writer", self.writer), cast("Discovery", FakeDiscovery()), ApplyCache()
        )

    def manage(self, *desired: dict[str, Any]) -> list[tuple[str, str]]:
        """Reconcile with all stored objects as observed, and return the writes."""
        self.writer.calls.clear()
        wanted = {child["metadata"]["name"]: child for child in desired}
        observed = {"C.v1": dict(self.writer.stored)}
        self.reconciler.manage(PARENT, observed, {"C.v1": wanted}, self.methods)
        return list(self.writer.calls)


def child(name: str, spec: int = 1) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "C", "metadata": {"name": name}, "spec": spec}


def test_in_place() -> None:
    setup = Setup(IN_PLACE)
    assert setup.manage(child("a")) == [("apply", "a")]
    assert setup.manage(child("a")) == []
    assert setup.manage(child("a", 2)) == [("apply", "a")]
    setup.writer.stored["a"]["metadata"]["generation"] += 1  # edited by hand
    assert setup.manage(child("a", 2)) == [("apply", "a")]
    assert setup.manage(child("b")) == [("delete", "a"), ("apply", "b")]


def test_on_delete_is_the_default() -> None:
    setup = Setup({})
    assert setup.manage(child("a")) == [("apply", "a")]
    assert setup.manage(child("a", 2)) == []
    del setup.writer.stored["a"]
    assert setup.manage(child("a", 2)) == [("apply", "a")]


def test_recreate_deletes_only_what_would_change() -> None:
    setup = Setup(RECREATE)
    setup.manage(child("a"))
    stored = setup.writer.stored["a"]
    setup.writer.stored["a"] = {**stored, "metadata": {**stored["metadata"], "generation": 7}}
    assert setup.manage(child("a")) == [("try", "a")]
    assert setup.manage(child("a")) == []
    stored = setup.writer.stored["a"]
    setup.writer.stored["a"] = {**stored, "extra": True, "metadata": {**stored["metadata"]}}
    setup.writer.stored["a"]["metadata"]["generation"] = 8
    assert setup.manage(child("a")) == [("try", "a"), ("delete", "a")]
    assert setup.manage(child("a")) == [("apply", "a")]


def test_recreate_keeps_a_child_whose_replacement_would_be_refused() -> None:
    setup = Setup(RECREATE)
    setup.manage(child("a"))
    setup.writer.fail["a"] = ForbiddenError("applying", "no", 403)
    assert setup.manage(child("a", 2)) == [("try", "a")]
    assert setup.manage(child("a", 2)) == []


def test_a_child_that_is_being_deleted_is_waited_for() -> None:
    setup = Setup(IN_PLACE)
    setup.manage(child("a"))
    setup.writer.stored["a"]["metadata"]["deletionTimestamp"] = "now"
    assert setup.manage(child("a", 2)) == []
    assert setup.manage() == []


def test_one_failure_does_not_stop_the_rest() -> None:
    setup = Setup(IN_PLACE)
    setup.writer.fail["a"] = INVALID
    with pytest.raises(SyncError, match="can't apply C a: bad"):
        setup.manage(child("a"), child("b"))
    assert setup.writer.calls == [("apply", "a"), ("apply", "b")]


def test_several_failures_are_told_together() -> None:
    setup = Setup(IN_PLACE)
    setup.writer.fail = {"a": INVALID, "b": INVALID}
    with pytest.raises(SyncError, match=r"C a: .*, can't apply C b: "):
        setup.manage(child("a"), child("b"))


def test_conflicts_and_children_that_are_gone_already_are_no_failures() -> None:
    setup = Setup(IN_PLACE)
    setup.manage(child("a"))
    setup.writer.fail = {"a": NOT_FOUND, "b": CONFLICT}
    assert setup.manage(child("b")) == [("delete", "a"), ("apply", "b")]
