"""What to do next: the one place that decides. Pure; times are seconds of a monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.capacity.admission import admit
from agent.capacity.ledger import Ledger
from agent.capacity.places import Hold, Places

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.capacity.admission import Victim
    from agent.capacity.ledger import Shortage

_NO_SHORTAGES: Mapping[str, Shortage] = MappingProxyType({})
_NOTHING: Mapping[str, float] = MappingProxyType({})
_NOBODY: Mapping[str, str] = MappingProxyType({})
_NO_HOLDS: Mapping[str, Hold] = MappingProxyType({})


@dataclass(frozen=True)
class View:
    """All that a plan depends on. Models are named by key.

    `wanted` is None when the LocalModelNode was never seen or is gone: then nobody knows what is
    wanted. It is in order, most important first, and may name a key twice.
    """

    now: float
    grace: float
    max_downloads: int
    wanted: tuple[str, ...] | None
    # Published, complete, and what the wanted list expects.
    ready: frozenset[str] = frozenset()
    # All that is ours below models/: ready ones, damaged ones, ones with another hash.
    published: frozenset[str] = frozenset()
    # What has staging on the disk, with or without a download that works on it.
    staged: frozenset[str] = frozenset()
    active: frozenset[str] = frozenset()
    # The active ones that were cancelled and wind down.
    cancelling: frozenset[str] = frozenset()
    # The places of the active ones, and for whom the others would be.
    holds: Mapping[str, Hold] = field(default_factory=lambda: _NO_HOLDS)
    owners: Mapping[str, str] = field(default_factory=lambda: _NOBODY)
    # The active ones that run for nobody any more who asks, or before who comes first.
    outdated: frozenset[str] = frozenset()
    # Wanted, but refused without a try: not supported, or not allowed.
    refused: frozenset[str] = frozenset()
    # Wanted, but not to be begun before the node's turn.
    suspended: frozenset[str] = frozenset()
    # When the next try of a failed download is due.
    retry_at: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    # Until when what is not listed stays whatever its grace: a removal failed, or the object that
    # does not list it is too new to be believed.
    keep_until: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    # The map that the plan before returned; empty at the agent's start.
    unwanted_since: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    # Evicted, with a note on the disk that says so.
    evicted: frozenset[str] = frozenset()
    # Who takes what, and of what.
    ledger: Ledger = field(default_factory=Ledger)
    # What pods of the node mount; None: not known, so that each model may be mounted.
    mounted: frozenset[str] | None = frozenset()
    # As the plan before returned them.
    making_room: str | None = None
    relieving: frozenset[str] = frozenset()
    # For what nothing goes now: it did before, in vain.
    patient: frozenset[str] = frozenset()
    # Whether the disk is there and can be written.
    disk_ready: bool = True


@dataclass(frozen=True)
class StepPlan:
    """Actions in order, and when to plan again if nothing happens before (None: never).

    `ask` is what starts without room, to hear its size from its source before anything goes for it.
    `evict` names all that is to go for one cause; the first of them goes, and then a new plan is
    made. `waiting` is what does not fit, `suspended` what would be begun if it was its turn,
    `queued` what would be if it had a place.
    """

    start: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    evict: tuple[Victim, ...] = ()
    waiting: Mapping[str, Shortage] = field(default_factory=lambda: _NO_SHORTAGES)
    suspended: frozenset[str] = frozenset()
    queued: frozenset[str] = frozenset()
    cancel: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    discard: tuple[str, ...] = ()
    wake_at: float | None = None
    unwanted_since: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    making_room: str | None = None
    relieving: frozenset[str] = frozenset()

    @property
    def destroys(self) -> bool:
        """Whether it takes anything away, and so needs a fresh look at what is wanted."""
        return bool(self.cancel or self.remove or self.discard or self.evict)


def plan_step(view: View) -> StepPlan:
    """The plan for a view.

    Nothing is removed, cancelled or discarded while it is unknown what is wanted, and the clocks of
    unwanted models start anew afterwards: absence is not a wish. What is not listed goes after the
    grace period, downloads included, because labels and plans flap; what is published, only when no
    pod mounts it. Nothing at all is begun while the disk is not ready. What is suspended is not
    begun, nor is room made for it; what runs or is here already does not care. Foreign directories
    are not part of the view, so no plan can name them.
    """
    if view.wanted is None:
        return StepPlan()
    order = tuple(dict.fromkeys(view.wanted))
    here = view.published | view.staged | view.active | view.evicted
    since = {key: view.unwanted_since.get(key, view.now) for key in sorted(here.difference(order))}
    due_at = {
        key: max(start + view.grace, view.keep_until.get(key, start))
        for key, start in since.items()
    }
    due = [key for key, at in due_at.items() if at <= view.now]
    waiting = [at for at in due_at.values() if at > view.now]
    if not view.disk_ready:
        return StepPlan(
            unwanted_since=MappingProxyType(since),
            making_room=view.making_room,
            relieving=view.relieving,
        )

    missing = [
        key
        for key in order
        if key not in view.ready and key not in view.active and key not in view.refused
    ]
    candidates = [key for key in missing if key not in view.suspended]
    later = {
        key: view.retry_at[key] for key in candidates if view.retry_at.get(key, view.now) > view.now
    }
    admission = admit(
        view.ledger,
        candidates,
        due=frozenset(candidates) - later.keys(),
        places=Places(
            view.max_downloads,
            [view.holds.get(key, Hold()) for key in view.active],
            view.owners,
        ),
        may_evict=view.mounted is not None,
        patient=view.patient,
        making_room=view.making_room,
        relieving=view.relieving,
    )
    running = view.active - view.cancelling
    left = (view.staged | view.evicted) - view.published
    return StepPlan(
        start=tuple(admission.start),
        ask=tuple(admission.ask),
        evict=tuple(admission.evict),
        waiting=MappingProxyType(admission.waiting),
        suspended=view.suspended.intersection(missing),
        queued=frozenset(admission.queued),
        cancel=tuple(key for key in (*due, *sorted(view.outdated)) if key in running),
        remove=tuple(key for key in due if _may_go(view, key)),
        discard=tuple(key for key in due if key in left and key not in view.active),
        wake_at=min([*waiting, *later.values()], default=None),
        unwanted_since=MappingProxyType(since),
        making_room=admission.making_room,
        relieving=admission.relieving,
    )


def _may_go(view: View, key: str) -> bool:
    if view.mounted is None or key in view.mounted:
        return False
    return key in view.published and key not in view.active
