"""States of a model's copies, from the reports of our agents and of KServe's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crds.states import CopyState, KServeModelStatus, ModelState, copy_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from crds.base import Identity
    from hooks.observed import Cache, Node, NodeReport


@dataclass(frozen=True)
class Copies:
    """The copies of one model, in the order of the nodes.

    states: NODE_NOT_READY for each copy on a node that is not Ready. reports: those of our agents.
    """

    states: Sequence[CopyState]
    reports: Sequence[NodeReport | None]


def copies_of(caches: Iterable[Cache], nodes: Sequence[Node]) -> Mapping[Identity, Copies]:
    """The copies of each model, in time proportional to nodes times models."""
    reports_of = [node.reports for node in nodes]
    found = {}
    for cache in caches:
        identity = cache.identity
        reports = [reported.get(identity) for reported in reports_of]
        states = [_state(node, report, cache) for node, report in zip(nodes, reports, strict=True)]
        found[identity] = Copies(states, reports)
    return found


def _state(node: Node, report: NodeReport | None, cache: Cache) -> CopyState:
    if node.spec.node_ready is not True:
        return CopyState.NODE_NOT_READY
    if report is None:
        reported = None if node.status.models else kserve_status(node, cache)
        return CopyState.PENDING if reported is None else copy_state(reported)
    state = copy_state(report.state)
    if state is CopyState.AVAILABLE and cache.spec.hash not in {None, report.hash}:
        # The agent has not yet compared the copy with a changed spec.hash.
        return CopyState.PENDING
    return state


def on_disk(node: Node, caches: Mapping[Identity, Cache]) -> set[Identity]:
    """Models with a complete copy on the node's disk that is not being removed, Ready or not."""
    if node.status.models:
        return {
            identity
            for identity, report in node.reports.items()
            if report.cached and report.state is not ModelState.REMOVING and identity in caches
        }
    if not node.kserve_words:
        return set()
    downloaded = KServeModelStatus.DOWNLOADED
    return {
        identity for identity, cache in caches.items() if kserve_status(node, cache) is downloaded
    }


def kserve_status(node: Node, cache: Cache) -> KServeModelStatus | None:
    """The state of a model as KServe's agent reports it, in status.modelStatus."""
    name, namespace = cache.metadata.name, cache.metadata.namespace
    return node.kserve_words.get(f"{namespace}/{name}" if namespace else name)
