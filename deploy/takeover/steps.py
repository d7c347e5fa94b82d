"""What a plan consists of: steps that the command can do, and what a person has to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject, Ref


@dataclass(frozen=True)
class DropFinalizers:
    """Take these finalizers off an object, and leave all others."""

    ref: Ref
    finalizers: tuple[str, ...]


@dataclass(frozen=True)
class Merge:
    """Merge a change into an object (RFC 7386: null removes)."""

    ref: Ref
    change: KubeObject


@dataclass(frozen=True)
class Delete:
    """Delete the object that was seen, and no later one of its name.

    wait: until it is gone, and what it owns before it.
    """

    ref: Ref
    uid: str
    wait: bool = False


Action = DropFinalizers | Merge | Delete


@dataclass(frozen=True)
class Step:
    """One thing to do. what and why: one sentence when put together with a colon."""

    action: Action
    what: str
    why: str


@dataclass(frozen=True)
class Plan:
    """Ordered steps, and the sentences that go with them.

    first: what a person must do before any step is done. then: what a person must do after the
    steps, before the command can go on. notes: what the person should know.
    """

    first: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    then: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
