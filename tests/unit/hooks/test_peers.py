"""What a plan says to nodes that fetch from each other, within the room of its object."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import Raw

from crds.base import ObjectMeta
from crds.models import PlacedModel
from crds.node import LocalModelNode, LocalModelNodeStatus, NodeModelStatus
from crds.nodegroup import LocalModelNodeGroup
from crds.peers import AgentPeer
from crds.placement import LocalModelPlacementSpec, Offer, Turn
from crds.states import ModelState
from hooks.nodes import _exchange_within, _ListEntry
from hooks.object_size import NODE_BYTES, PLACEMENT_BYTES, PLAN_BYTES, json_bytes
from hooks.observed import GroupRef, Node
from hooks.peers import with_peers
from tests.unit.hooks.stored import read_node

GROUP = LocalModelNodeGroup.model_validate(
    {
        "metadata": {"name": "gpu"},
        "spec": {
            "nodeSelector": {"pool": "gpu"},
            "storageLimit": "1Ti",
            "download": {"peers": "Enabled"},
        },
    }
)
HASH = f"sha256:{'a' * 64}"
OTHER_HASH = f"sha256:{'b' * 64}"
FIRST, SECOND, THIRD = (f"sha256:{digit * 64}" for digit in "123")


def model(name: str = "llama", **fields: Any) -> PlacedModel:
    return PlacedModel(
        source_model_uri=f"s3://models/{name}", model_size="1Gi", model_name=name, **fields
    )


def plan(*models: PlacedModel, **fields: Any) -> LocalModelPlacementSpec:
    return LocalModelPlacementSpec(storage_limit="1Ti", models=models, **fields)


def told(manifest: str, peer_bytes: int | None = None, **fields: Any) -> NodeModelStatus:
    return NodeModelStatus(
        **{"state": ModelState.DOWNLOADED, "cached": True, "hash": HASH} | fields,
        name="llama",
        key=model().key,
        manifest_hash=manifest,
        peer_bytes=peer_bytes,
    )


def node(name: str, *models: NodeModelStatus, peer: AgentPeer | None = None) -> Node:
    return read_node(
        LocalModelNode(
            metadata=ObjectMeta(name=name),
            status=LocalModelNodeStatus(models=models, peer=peer),
        )
    )


def verified(*reports: NodeModelStatus, was: str | None = None, **fields: Any) -> str | None:
    """The manifest that the plan gets from these reports, each of another node."""
    nodes = [node(f"node-{number}", report) for number, report in enumerate(reports)]
    stored = plan(model(verified_manifest=was, **fields)) if was else None
    (placed,) = with_peers(plan(model(**fields)), GROUP, nodes, stored).models
    return placed.verified_manifest


@pytest.mark.parametrize(
    ("reports", "manifest"),
    [
        ([], None),
        ([told(FIRST)], None),
        ([told(FIRST), told(SECOND)], None),
        ([told(FIRST), told(FIRST)], FIRST),
        ([told(FIRST), told(FIRST, peer_bytes=0)], FIRST),
        ([told(FIRST), told(FIRST, peer_bytes=1)], None),
        ([told(FIRST), told(FIRST, cached=False)], None),
        ([told(FIRST), told(FIRST, state=ModelState.EVICTED)], None),
        ([told(FIRST)] * 2 + [told(SECOND)] * 3, SECOND),
        ([told(SECOND)] * 2 + [told(FIRST)] * 2, FIRST),
    ],
)
def test_two_nodes_that_read_the_origin_verify_a_manifest(
    reports: list[NodeModelStatus], manifest: str | None
) -> None:
    assert verified(*reports) == manifest


def test_digests_of_the_store_verify_what_came_from_peers() -> None:
    one = told(FIRST, 5, store_digests=True)
    assert verified(told(FIRST), told(FIRST, 5)) is None
    assert verified(told(FIRST), one) == FIRST
    assert verified(one, one) == FIRST


def test_with_the_hash_that_is_asked_for_one_node_is_enough() -> None:
    assert verified(told(FIRST, peer_bytes=5), hash=HASH) == FIRST
    others = [told(SECOND, hash=OTHER_HASH)] * 2
    assert verified(*others, hash=HASH) is None
    assert verified(*others, told(FIRST), hash=HASH) == FIRST


@pytest.mark.parametrize(
    ("reports", "manifest"),
    [
        ([], THIRD),
        ([told(FIRST)], THIRD),
        ([told(FIRST)] * 2, FIRST),
        ([told(FIRST)] * 2 + [told(THIRD, peer_bytes=5)], THIRD),
    ],
)
def test_a_verified_manifest_stays_while_a_node_has_it_or_there_is_no_other(
    reports: list[NodeModelStatus], manifest: str
) -> None:
    assert verified(*reports, was=THIRD) == manifest


@pytest.mark.parametrize("changed", [{"hash": OTHER_HASH}, {"service_account_name": "reader"}])
def test_a_changed_source_drops_it_and_a_changed_priority_does_not(changed: dict[str, str]) -> None:
    stored = plan(model(verified_manifest=THIRD))
    (placed,) = with_peers(plan(model(**changed)), GROUP, [], stored).models
    assert placed.verified_manifest is None
    (placed,) = with_peers(plan(model(priority=5)), GROUP, [], stored).models
    assert placed.verified_manifest == THIRD


def test_a_disabled_exchange_leaves_nothing_of_it_in_an_entry_that_stays() -> None:
    disabled = GROUP.model_copy(update={"spec": GROUP.spec.model_copy(update={"download": None})})
    found = with_peers(plan(model(verified_manifest=FIRST)), disabled, [], None)
    assert found == plan(model())


def serving(number: int) -> Node:
    peer = AgentPeer(address=f"10.0.0.{number % 250}:9444", fingerprint="a" * 64)
    return node(f"node-{number:05d}", peer=peer)


def _size(spec: LocalModelPlacementSpec) -> int:
    return len(spec.model_dump_json(by_alias=True, exclude_none=True))


def test_peers_have_room_beside_a_usual_plan_of_five_thousand_nodes() -> None:
    nodes = [serving(number) for number in range(5000)]
    found = with_peers(plan(*(model(f"m{n}") for n in range(100))), GROUP, nodes, None)
    assert found.peers is not None
    assert [one.node for one in found.peers] == [one.metadata.name for one in nodes]
    assert _size(found) <= PLACEMENT_BYTES


def test_peers_are_cut_and_models_are_not() -> None:
    nodes = [serving(number) for number in range(1000)]
    # More offers than a plan has, so that few peers have room.
    offer = Offer(key="0" * 16, label_name="x" * 60)
    two = {"model-00000": offer, "model-00001": offer}
    size = _size(plan(offers=two)) - _size(plan(offers={"model-00000": offer}))
    offers = {f"model-{n:05d}": offer for n in range((PLACEMENT_BYTES - 60_000) // size)}
    full = plan(model(), offers=offers)
    found = with_peers(full, GROUP, nodes, None)
    assert found.peers is not None
    assert 0 < len(found.peers) < len(nodes)
    assert (found.models, found.offers) == (full.models, full.offers)
    names = tuple(one.metadata.name for one in nodes)
    turn = Turn(nodes=names, since=datetime(2026, 11, 24, tzinfo=UTC))
    later = with_peers(full.model_copy(update={"turn": turn}), GROUP, nodes, None)
    assert later.peers == found.peers
    assert _size(later) <= PLACEMENT_BYTES


def test_manifests_never_take_the_room_of_models() -> None:
    one = json_bytes(model("m0000"))
    models = [model(f"m{n:04d}") for n in range(PLAN_BYTES // one)]
    stored = plan(*(one.model_copy(update={"verified_manifest": FIRST}) for one in models))
    found = with_peers(plan(*models[:-10]), GROUP, [], stored)
    known = [one for one in found.models if one.verified_manifest]
    assert known
    assert list(found.models[: len(known)]) == known
    assert sum(map(json_bytes, found.models)) <= PLAN_BYTES


def test_a_node_has_peers_in_the_groups_for_which_its_entries_leave_room() -> None:
    exchange = Raw(b"{" + b" " * 40_000 + b"}")
    groups = [GroupRef(name=f"g{n}", storage_limit="1Gi", exchange=exchange) for n in range(3)]
    entry = _ListEntry(0, Raw(b"{" + b" " * (NODE_BYTES - 100_000) + b"}"))
    assert list(_exchange_within(groups, [])) == groups
    cut = list(_exchange_within(groups, [entry]))
    assert cut == [*groups[:2], GroupRef(name="g2", storage_limit="1Gi")]
