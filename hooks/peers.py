"""What the plan of a group says to nodes that fetch from each other: agents, and known manifests.

An agent reports where it serves, and the hash of the manifest of each of its copies. Where two
nodes read the same from the origin, the manifest is known to all: so files that come from a peer
can be recognized, also where the store has no digests.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from crds.naming import ZONE_LABEL
from crds.peers import PeerEndpoint
from crds.states import ModelState
from hooks.object_size import MANIFEST_BYTES, first_within, json_bytes, peers_room, plan_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crds.base import Identity
    from crds.models import PlacedModel
    from crds.nodegroup import LocalModelNodeGroup
    from crds.placement import LocalModelPlacementSpec
    from hooks.observed import Node, NodeReport

# Nodes that must have read the same from the origin.
WITNESSES = 2


def with_peers(
    plan: LocalModelPlacementSpec,
    group: LocalModelNodeGroup,
    nodes: Sequence[Node],
    stored: LocalModelPlacementSpec | None,
) -> LocalModelPlacementSpec:
    """The plan with what nodes need to fetch from each other, if the group enables that.

    nodes: those of the group, sorted by name. stored: the stored plan. Where the object has no room
    for all, the last models have no manifest, and the last nodes do not take part.
    """
    bare = tuple(_with_manifest(model, None) for model in plan.models)
    if not group.spec.peers_enabled:
        return plan.model_copy(update={"models": bare})
    known = _known_manifests(bare, nodes, stored)
    room = plan_bytes(group.spec) - sum(map(json_bytes, bare))
    fitting = dict(first_within(tuple(known.items()), lambda _: MANIFEST_BYTES, room))
    models = tuple(_with_manifest(model, fitting.get(model.identity)) for model in bare)
    plan = plan.model_copy(update={"models": models})
    room = peers_room(plan, [node.metadata.name for node in nodes])
    endpoints = first_within(tuple(_endpoints(nodes)), _endpoint_bytes, room)
    return plan.model_copy(update={"peers": tuple(endpoints)})


def _with_manifest(model: PlacedModel, manifest: str | None) -> PlacedModel:
    if model.verified_manifest == manifest:
        return model
    return model.model_copy(update={"verified_manifest": manifest})


def _endpoints(nodes: Iterable[Node]) -> Iterable[PeerEndpoint]:
    for node in nodes:
        peer = node.status.peer
        if peer is not None:
            yield PeerEndpoint(
                node=node.metadata.name,
                address=peer.address,
                fingerprint=peer.fingerprint,
                zone=(node.metadata.labels or {}).get(ZONE_LABEL, ""),
            )


def _endpoint_bytes(endpoint: PeerEndpoint) -> int:
    return len(endpoint.model_dump_json(by_alias=True)) + 1


def _known_manifests(
    models: Iterable[PlacedModel],
    nodes: Sequence[Node],
    stored: LocalModelPlacementSpec | None,
) -> Mapping[Identity, str]:
    """Hashes of the manifests that are known, in the order of the models."""
    had = {model.identity: model for model in stored.models} if stored else {}
    reports_of = [node.reports for node in nodes]
    known: dict[Identity, str] = {}
    for model in models:
        found = (reports.get(model.identity) for reports in reports_of)
        last = had.get(model.identity)
        was = last.verified_manifest if last and _same_source(last, model) else None
        manifest = _known_manifest(
            was, [one for one in found if one and _tells(one, model)], hash_known=bool(model.hash)
        )
        if manifest is not None:
            known[model.identity] = manifest
    return known


def _known_manifest(
    was: str | None, reports: Sequence[NodeReport], *, hash_known: bool
) -> str | None:
    """The manifest that counts, if any. was: the stored one.

    Nodes count that have compared all bytes with the origin: they came from there, or its store
    reports the digests. The hash stays while a node has it, or while there is no other: nodes that
    come later need it also when the origin and the first copies are gone. hash_known: whether the
    cache gives the hash of the model, which all these reports have. Then one report is enough.
    """
    direct = Counter(
        one.manifest_hash for one in reports if one.store_digests or not one.peer_bytes
    )
    told = {one.manifest_hash for one in reports if one.manifest_hash}
    known = {one for one in told if hash_known or direct[one] >= WITNESSES}
    if was is not None and (was in told or not known):
        return was
    return min(known, key=lambda one: (-direct[one], one), default=None)


def _tells(report: NodeReport, model: PlacedModel) -> bool:
    """Whether a report is of a complete copy that has a manifest and the hash that is asked for."""
    return (
        report.manifest_hash is not None
        and report.cached
        and report.state is ModelState.DOWNLOADED
        and model.hash in {None, report.hash}
    )


def _same_source(one: PlacedModel, other: PlacedModel) -> bool:
    return (one.source_model_uri, one.service_account_name, one.storage, one.hash) == (
        other.source_model_uri,
        other.service_account_name,
        other.storage,
        other.hash,
    )
