"""When a group that is being deleted may go: its condition ModelsRemoved.

Its plan is emptied first. While a node's object lists a model of the group, the group stays: with
the group its plan goes, and a plan that is missing takes nothing off a node. The node's hook writes
that list, so it becomes empty on nodes that are not Ready too. Times are those at which the
condition has changed, by the hooks' own clock.
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

# A node's hook that was on its way with the full plan has written by then, and runs again.
SETTLE = timedelta(seconds=3)
# Agents that do not answer for so long are not waited for: their nodes list nothing any more, and
# they clean up when they are back. Nor is a plan that cannot be written and that no node follows.
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True)
class Removal:
    """What the condition says, and whether the group may go."""

    finding: Finding
    done: bool


def removal(
    group: str,
    stored: LocalModelPlacementSpec | None,
    nodes: Sequence[Node],
    told: Iterable[StoredCondition],
    now: datetime,
) -> Removal:
    """Decide it. stored: the plan as it is written; told: the group's conditions as they are."""
    listing = [node.metadata.name for node in nodes if _lists(group, node)]
    removing = [node.metadata.name for node in nodes if _may_have_more(node)]
    emptied = stored is not None and not stored.models
    if listing:
        message = f"waiting for the LocalModelNode of {some(listing)} to list none of its models"
        return Removal(_removed("False", reasons.NODES_LIST_MODELS, message), done=False)
    if not emptied:
        finding = _removed("False", reasons.PLAN_PENDING, "waiting for its plan to be emptied")
        return Removal(finding, done=stored is None and _lasted(finding, told, now) > PATIENCE)
    if removing:
        message = f"waiting for nodes to remove the models: {some(removing)}"
        finding = _removed("Unknown", reasons.AGENTS_REMOVE_MODELS, message)
        return Removal(finding, done=_lasted(finding, told, now) > PATIENCE)
    finding = _removed("True", reasons.MODELS_REMOVED, "models removed")
    return Removal(finding, done=_lasted(finding, told, now) >= SETTLE)


def _removed(status: str, reason: str, message: str) -> Finding:
    return Finding(reasons.REMOVED, status, reason, message)  # type: ignore[arg-type]


def _lasted(finding: Finding, told: Iterable[StoredCondition], now: datetime) -> timedelta:
    """For how long the condition has said so."""
    for one in told:
        if one.type == finding.type and one.status == finding.status:
            return now - one.last_transition_time
    return timedelta(0)


def _lists(group: str, node: Node) -> bool:
    return any(model.node_group == group for model in node.spec.local_models)


def _may_have_more(node: Node) -> bool:
    """Whether a Ready node may still have models of a group that it lists no more."""
    if not node.ready:
        return False
    seen = node.status.observed_generation
    if seen is not None and seen < node.metadata.generation:
        return True
    return any(report.state is ModelState.REMOVING for report in node.status.models)
