"""Conditions that keep the time of their last transition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from crds.base import MESSAGE_MAX, Condition

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


class StoredCondition(Protocol):
    """The part of a stored condition that shows whether its status has changed since."""

    @property
    def type(self) -> str:
        """Name of the condition."""

    @property
    def status(self) -> str:
        """Status of the condition."""

    @property
    def last_transition_time(self) -> datetime:
        """When the status of the condition last changed."""


@dataclass(frozen=True)
class Finding:
    """The content of a condition: all but its times and generation."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def conditions(
    findings: Iterable[Finding],
    *,
    observed: Iterable[StoredCondition],
    generation: int,
    now: datetime,
) -> tuple[Condition, ...]:
    """Conditions from findings, in the same order.

    lastTransitionTime is copied from the observed condition of the same type and status: otherwise
    each sync would write the object. Messages are cut to the length that Kubernetes accepts.
    """
    before = {condition.type: condition for condition in observed}
    made = []
    for finding in findings:
        old = before.get(finding.type)
        same = old is not None and old.status == finding.status
        made.append(
            Condition(
                type=finding.type,
                status=finding.status,
                observed_generation=generation,
                last_transition_time=old.last_transition_time if old and same else now,
                reason=finding.reason,
                message=finding.message[:MESSAGE_MAX],
            )
        )
    return tuple(made)
