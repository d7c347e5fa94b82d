"""What a node reports of a model, whoever its agent is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crds.states import CopyState, KServeModelStatus, ModelState, copy_state

if TYPE_CHECKING:
    from crds.cache import AnyCache
    from crds.node import LocalModelNode, NodeModelStatus


@dataclass(frozen=True)
class Copy:
    """The copy of a model on one node. report: what an agent of ours says of it."""

    state: CopyState
    report: NodeModelStatus | None


def copy_on(node: LocalModelNode, cache: AnyCache) -> Copy:
    """The copy as it counts now: one on a node that is not Ready serves nobody."""
    report = _report(node, cache)
    if not node.spec.node_ready:
        return Copy(CopyState.NODE_NOT_READY, report)
    told = _told(node, cache)
    state = CopyState.PENDING if told is None else copy_state(told)
    if report is not None and state is CopyState.AVAILABLE:
        # Until then, the agent has not seen the hash that is asked for now.
        state = state if cache.spec.hash in {None, report.hash} else CopyState.PENDING
    return Copy(state, report)


def is_on_disk(node: LocalModelNode, cache: AnyCache) -> bool:
    """Whether a whole copy is there to stay, be the node Ready or not."""
    report = _report(node, cache)
    if report is not None:
        return report.cached and report.state is not ModelState.REMOVING
    return _told(node, cache) is KServeModelStatus.DOWNLOADED


def _report(node: LocalModelNode, cache: AnyCache) -> NodeModelStatus | None:
    return next((one for one in node.status.models if one.identity == cache.identity), None)


def _told(node: LocalModelNode, cache: AnyCache) -> ModelState | KServeModelStatus | None:
    report = _report(node, cache)
    if report is not None:
        return report.state
    if node.status.models:
        return None
    # KServe's agent reports nothing but this map.
    name, namespace = cache.metadata.name, cache.metadata.namespace
    return (node.status.model_status or {}).get(f"{namespace}/{name}" if namespace else name)
