"""Steps that the command performs, and the runbook of steps and manual actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject, Ref


@dataclass(frozen=True)
class DropFinalizers:
    """Remove these finalizers from an object, and leave all others."""

    ref: Ref
    finalizers: tuple[str, ...]


@dataclass(frozen=True)
class Merge:
    """Merge a change into an object (RFC 7386: null removes)."""

    ref: Ref
    change: KubeObject


@dataclass(frozen=True)
class Delete:
    """Delete the object that was observed, and no later object of its name.

    uid: empty means any object of the name. wait: until the objects that it owns and then the
    object itself are gone.
    """

    ref: Ref
    uid: str = ""
    wait: bool = False


@dataclass(frozen=True)
class Empty:
    """List no models for any node, and wait until every agent reports that it has none."""


Action = DropFinalizers | Merge | Delete | Empty


@dataclass(frozen=True)
class Step:
    """An action, and the text for it: `what: why` is one sentence."""

    action: Action
    what: str
    why: str


@dataclass(frozen=True)
class Runbook:
    """Steps in their order, and sentences for the person who runs the command.

    first: what the person must do before any step; then there are no steps. then: what the person
    must do after the steps, before running the command again. notes: what the person should know.
    """

    first: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    then: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
