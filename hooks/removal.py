"""When the deletion of a group is complete: its condition ModelsRemoved.

The plan is emptied first. The group stays while a LocalModelNode lists a model of the group: the
plan is deleted with the group, and a missing plan removes no entries. The node's hook writes the
entries, so they go on nodes that are not Ready too. Durations are measured from transitions of the
condition, by the hooks' clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from crds.conditions import Finding
from crds.states import ModelState
from hooks import reasons
from hooks.messages import some

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from crds.conditions import StoredCondition
    from crds.placement import LocalModelPlacementSpec
    from hooks.observed import Node

# After this time, each call of a node's hook that began with the full plan has been written and
# redone.
SETTLE = timedelta(seconds=3)
# Agents that do not respond for so long are not waited for: their entries are gone, so they clean
# up when they are back. The same holds for a plan that cannot be written and that no node follows.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Removal:
    """The condition, and whether the deletion may complete."""

    finding: Finding
    done: bool


def removal(
    group: str,
    stored: LocalModelPlacementSpec | None,
    nodes: Sequence[Node],
    observed: Iterable[StoredCondition],
    now: datetime,
) -> Removal:
    """Decide. stored: the stored plan. observed: the stored conditions of the group."""
    listing = [node.metadata.name for node in nodes if _lists(group, node)]
    removing = [node.metadata.name for node in nodes if _may_have_more(node)]
    emptied = stored is not None and not stored.models
    if listing:
        message = f"waiting for the LocalModelNode of {some(listing)} to list none of its models"
        return Removal(_removed("False", reasons.NODES_LIST_MODELS, message), done=False)
    if not emptied:
        finding = _removed("False", reasons.PLAN_PENDING, "waiting for its plan to be emptied")
        return Removal(finding, done=stored is None and _lasted(finding, observed, now) > PATIENCE)
    if removing:
        message = f"waiting for nodes to remove the models: {some(removing)}"
        finding = _removed("Unknown", reasons.AGENTS_REMOVE_MODELS, message)
        return Removal(finding, done=_lasted(finding, observed, now) > PATIENCE)
    finding = _removed("True", reasons.MODELS_REMOVED, "models removed")
    return Removal(finding, done=_lasted(finding, observed, now) >= SETTLE)


def _removed(status: str, reason: str, message: str) -> Finding:
    return Finding(reasons.REMOVED, status, reason, message)  # type: ignore[arg-type]


def _lasted(finding: Finding, observed: Iterable[StoredCondition], now: datetime) -> timedelta:
    """How long the condition has had this status."""
    for one in observed:
        if one.type == finding.type and one.status == finding.status:
            return now - one.last_transition_time
    return timedelta(0)


def _lists(group: str, node: Node) -> bool:
    return any(model.node_group == group for model in node.spec.local_models)


def _may_have_more(node: Node) -> bool:
    """Whether a Ready node may still have models that it no longer lists."""
    if not node.ready:
        return False
    seen = node.status.observed_generation
    if seen is not None and seen < node.metadata.generation:
        return True
    return any(report.state is ModelState.REMOVING for report in node.status.models)
