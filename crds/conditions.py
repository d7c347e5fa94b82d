"""Conditions that keep the time of their last flip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from crds.base import MESSAGE_MAX, Condition

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


class StoredCondition(Protocol):
    """A condition as it is stored: what tells whether it has flipped since."""

    @property
    def type(self) -> str:
        """Name of the condition."""

    @property
    def status(self) -> str:
        """Whether it held."""

    @property
    def last_transition_time(self) -> datetime:
        """When the status last changed."""


@dataclass(frozen=True)
class Finding:
    """What a condition says now, without its times."""

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
    """Conditions from findings, in their order.

    lastTransitionTime is carried over from the observed condition of the type unless the status
    differs: otherwise every sync would write.
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
