"""What nodes report of a model, whoever their agents are."""

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

    states: as they count now: one on a node that is not Ready serves nobody. reports: what agents
    of ours say of them.
    """

    states: Sequence[CopyState]
    reports: Sequence[NodeReport | None]


def copies_of(caches: Iterable[Cache], nodes: Sequence[Node]) -> Mapping[Identity, Copies]:
    """The copies of each model. The nodes' reports are looked up, and never searched."""
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
        told = None if node.status.models else kserve_status(node, cache)
        return CopyState.PENDING if told is None else copy_state(told)
    state = copy_state(report.state)
    if state is CopyState.AVAILABLE and cache.spec.hash not in {None, report.hash}:
        # Until then, the agent has not seen the hash that is asked for now.
        return CopyState.PENDING
    return state


def on_disk(node: Node, caches: Mapping[Identity, Cache]) -> set[Identity]:
    """The models of which a whole copy is there to stay, be the node Ready or not."""
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
    """What KServe's agent says of a model, which reports nothing but a map of words."""
    name, namespace = cache.metadata.name, cache.metadata.namespace
    return node.kserve_words.get(f"{namespace}/{name}" if namespace else name)
