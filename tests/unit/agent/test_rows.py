"""What follows from a row, and what of a node's state makes one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.control.rows import Row
from agent.control.wanted import wanted_of
from agent.disk.on_disk import Found, OnDisk
from agent.jobs.reservations import Coming
from agent.structs.credentials import CredentialRef
from agent.structs.grants import grant_for
from agent.structs.manifest import Access, CacheName
from agent.structs.requests import Requester, Transfer
from crds.eviction import Retention
from crds.node import LocalModelNode
from tests.unit.agent import inside
from tests.unit.agent.helpers import local_model, node_object
from tests.unit.agent.rows import EVICTED, FAILURE, POD, WHOLE, retries, wanted

if TYPE_CHECKING:
    from agent.control.wanted import Wish
    from crds.node import LocalModel
    from tests.unit.agent.world import World

URI = "mem://any"
GIB = 1 << 30
A, B = (Requester("team", CredentialRef(service_account=name)) for name in "ab")


def wish(*models: LocalModel) -> Wish:
    (made,) = wanted(*models).wishes.values()
    return made


def of_team(account: str, **fields: Any) -> LocalModel:
    return local_model(account, URI, namespace="team", service_account_name=account, **fields)


ONE = wish(local_model("m", URI))
BOTH = wish(of_team("a"), of_team("b"))
OTHER_HASH = wish(local_model("m", URI, hash=f"sha256:{'0' * 64}"))


def test_whose_attempt_is_next() -> None:
    row = Row("k", BOTH)
    assert (row.requester(100), row.retry_at) == (A, None)
    failed = retries({A: FAILURE}, at=200)
    row = replace(row, retries=failed)
    assert (row.requester(100), row.requester(200), row.retry_at) == (B, A, None)
    row = replace(row, retries=failed | retries({B: FAILURE}, at=150))
    assert (row.requester(100), row.requester(150), row.retry_at) == (A, B, 150)
    assert Row("k").requester(0) is None


def test_those_who_had_the_copy_come_first() -> None:
    held = Access(origin="mem://any", listing="", grants=(grant_for(B),))
    assert Row("k", BOTH, OnDisk(held=held)).requester(0) == B


def test_a_download_for_who_does_not_fill_the_folder_any_more_is_outdated() -> None:
    row = Row("k", BOTH, transfer=Transfer(requester=A))
    assert not row.is_outdated
    assert replace(row, wish=wish(local_model("m", URI), of_team("a"))).is_outdated
    assert not Row("k", transfer=Transfer(requester=A)).is_outdated


@pytest.mark.parametrize(
    ("row", "holding"),
    [
        (Row("k", ONE), {"size": 0, "tree": 0, "groups": {"gpus"}, "owners": frozenset()}),
        (Row("k", BOTH), {"owners": {"team"}}),
        # What is declared is no size; what was learned is, for this declaration alone.
        (Row("k", ONE, learned={(GIB, Coming.MODEL): 7, (GIB, Coming.REST): 3}), {"size": 7}),
        (Row("k", ONE, learned={(GIB + 1, Coming.MODEL): 7}), {"size": 0}),
        (
            Row("k", ONE, is_foreign=True, learned={(GIB, Coming.REST): 3}),
            {"size": 3, "foreign": True},
        ),
        (
            Row("k", ONE, OnDisk(Found.STAGED, announced=5, staged_bytes=4)),
            {"size": 5, "staged": 4},
        ),
        (Row("k", ONE, OnDisk(evicted=EVICTED)), {"size": 1, "evicted": True}),
        (
            Row("k", ONE, OnDisk(Found.PUBLISHED, WHOLE, tree_bytes=9)),
            {"tree": 9, "resting": True, "superseded": False},
        ),
        (
            Row("k", OTHER_HASH, OnDisk(Found.PUBLISHED, WHOLE, tree_bytes=9)),
            {"tree": 9, "resting": True, "superseded": True},
        ),
        (
            Row("k", ONE, OnDisk(Found.PUBLISHED, WHOLE), transfer=Transfer()),
            {"resting": False},
        ),
        (
            Row("k", ONE, OnDisk(Found.PUBLISHED, WHOLE), is_put_off=True, keep_until=1),
            {"resting": False},
        ),
        # A damaged copy that a pod may use stays beside what mends it.
        (
            Row("k", ONE, OnDisk(Found.DAMAGED, WHOLE, "bad", tree_bytes=9, bad_bytes=2)),
            {"size": 0, "tree": 0, "staged": 9},
        ),
        (
            Row(
                "k",
                ONE,
                OnDisk(Found.DAMAGED, WHOLE, "bad", tree_bytes=9, bad_bytes=2),
                pods=None,
            ),
            {"size": 2, "tree": 9, "staged": 0, "mounted": False},
        ),
        (Row("k", ONE, pods=(POD,)), {"mounted": True, "referenced": True}),
        (Row("k", wish(local_model("m", URI, referenced=True))), {"referenced": True}),
        (
            Row("k", wish(local_model("m", URI, retention=Retention.PINNED, priority=3))),
            {"pinned": True, "priority": 3},
        ),
        # Who has named the URI and has no grant says nothing of the copy.
        (
            Row(
                "k",
                wish(local_model("m", URI), of_team("a", retention=Retention.PINNED, priority=9)),
            ),
            {"pinned": False, "priority": 0},
        ),
        # A larger size that a namespace with a grant declares changes nothing of what was learned.
        (
            Row(
                "k",
                wish(local_model("m", URI), of_team("a", model_size="2Gi")),
                OnDisk(held=Access(origin="mem://any", listing="", grants=(grant_for(A),))),
                learned={(GIB, Coming.MODEL): 7},
            ),
            {"size": 7},
        ),
        # What is no longer wanted goes by itself, unless something keeps it.
        (Row("k", copy=OnDisk(Found.PUBLISHED, WHOLE)), {"leaving": True}),
        (Row("k", copy=OnDisk(Found.PUBLISHED, WHOLE), keep_until=1), {"leaving": False}),
        (Row("k", copy=OnDisk(Found.PUBLISHED, WHOLE), pods=(POD,)), {"leaving": False}),
        (Row("k", copy=OnDisk(Found.STAGED), reserved=0), {"leaving": False}),
        (Row("k", ONE), {"leaving": False}),
    ],
)
def test_what_the_ledger_counts(row: Row, holding: dict[str, object]) -> None:
    assert {name: getattr(row.holding, name) for name in holding} == holding


def test_owners_outlive_the_wish_and_are_told_to_who_may_have_the_copy() -> None:
    names = (CacheName(name="m"), CacheName(name="m", namespace="team"))
    row = Row("k", copy=OnDisk(Found.PUBLISHED, WHOLE), owners=names)
    assert row.granted_owners == names[:1]
    assert not row.has_noted_owners


def test_wishes_that_have_not_changed_are_taken_over() -> None:
    models = [local_model(name, f"mem://{name}") for name in "ab"]

    def parsed(*models: LocalModel) -> LocalModelNode:
        return LocalModelNode.model_validate(node_object(*models))

    before = wanted_of(parsed(*models))
    after = wanted_of(parsed(models[0], models[1].model_copy(update={"priority": 1})), before)
    assert after.wishes[models[0].key] is before.wishes[models[0].key]
    assert after.requests[models[1].key].priority == 1
    assert list(wanted_of(parsed(models[1]), after).wishes) == [models[1].key]


def test_only_rows_that_have_changed_are_new(world: World) -> None:
    world.want(world.model("a"), world.model("b"))
    world.settle()
    before = dict(inside.state(world.loop)._rows)
    world.want(world.model("a", priority=1), world.model("b"))
    world.step(61)
    after = inside.state(world.loop)._rows
    assert after[world.key("b")] is before[world.key("b")]
    assert after[world.key("a")].request != before[world.key("a")].request
