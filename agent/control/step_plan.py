"""The actions of one step: downloads, cancellations, evictions, removals. Pure.

Times are seconds of a monotonic clock. capacity/download_queue.py decides on downloads and on
evictions for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.capacity.download_queue import decide_downloads
from agent.capacity.places import Hold, Places
from agent.control.eviction_requests import requested_evictions
from agent.disk.on_disk import Found

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agent.capacity.download_queue import QueueDecision, Victim
    from agent.capacity.ledger import Shortage
    from agent.control.eviction_requests import Kept
    from agent.control.rows import Row, Table

_NO_SHORTAGES: Mapping[str, Shortage] = MappingProxyType({})
_NOTHING: Mapping[str, float] = MappingProxyType({})
_NONE_KEPT: Mapping[str, Kept] = MappingProxyType({})


@dataclass(frozen=True)
class StepPlan:
    """Actions in order, by key, and when to plan again if nothing happens before (None: never).

    `ask` are the downloads that start without room, to learn their size from the source before
    anything is evicted for them. `evict` names all copies that are to go for one cause; the first
    of them goes, and then a new plan is made. `waiting` are the downloads that do not fit,
    `suspended` those that would start if it was the node's turn, `queued` those that would start if
    they had a place. `replace` are the superseded copies that make room for their own downloads.
    `folders` are the keys whose volumes' folders go. `kept` are the copies whose
    eviction was requested, and that stay.

    The next plan goes on from `unwanted_since`, `making_room` and `relieving`.
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
    replace: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    kept: Mapping[str, Kept] = field(default_factory=lambda: _NONE_KEPT)
    wake_at: float | None = None
    unwanted_since: Mapping[str, float] = field(default_factory=lambda: _NOTHING)
    making_room: str | None = None
    relieving: frozenset[str] = frozenset()

    @property
    def destroys(self) -> bool:
        """Whether anything is taken away, which needs a fresh look at what is wanted."""
        taken = self.remove or self.discard or self.replace or self.folders or self.evict
        return bool(self.cancel or taken)


NO_PLAN = StepPlan()


def plan_step(table: Table, before: StepPlan = NO_PLAN) -> StepPlan:
    """The plan for the rows of a step; `before` is the plan of the step before.

    Nothing is removed, cancelled or discarded while it is unknown what is wanted, and the clocks of
    unwanted models start anew afterwards: absence is not a wish. A model that is not listed goes
    after the grace period, its download included, because labels and plans flap; a published copy
    only when no pod mounts it. The folder of its volume goes after the copy, and when no pod refers
    to it: a pod that mounted a folder never sees another one that is made in its place. Nothing at
    all begins while the disk is not ready. A suspended download does not begin, nor is room made
    for it; a download that runs and a copy that is there stay. A model that a pod of the node waits
    for is not suspended. A foreign directory is no row's copy, so no plan can name it.
    """
    if table.wanted is None:
        return StepPlan()
    unwanted = [row for row in table.rows.values() if row.is_there and not row.is_wanted]
    unwanted.sort(key=lambda row: row.key)
    since = {row.key: before.unwanted_since.get(row.key, table.now) for row in unwanted}
    if table.disk_failure is not None:
        return StepPlan(
            unwanted_since=MappingProxyType(since),
            making_room=before.making_room,
            relieving=before.relieving,
        )
    due_at = {
        row.key: max(since[row.key] + table.grace, row.keep_until or since[row.key])
        for row in unwanted
    }
    due = [row for row in unwanted if due_at[row.key] <= table.now]
    missing = [
        row
        for row in map(table.row, table.wanted.wishes)
        if row.request is not None and not (row.is_active or row.serves or row.stays_away)
    ]
    suspended = {row.key for row in missing if row.awaits_turn}
    candidates = [row for row in missing if row.key not in suspended]
    later = {
        row.key: row.retry_at
        for row in candidates
        if row.retry_at is not None and row.retry_at > table.now
    }
    views = [row for row in candidates if row.lacks_only_view and row.key not in later]
    downloads = [row for row in candidates if not row.lacks_only_view]
    admission = _decide_downloads(table, before, downloads, later.keys())
    requested, kept = requested_evictions(table)
    # What goes by request may be enough: the next plan says whether more has to go.
    evict = requested or tuple(admission.evict)
    victims = {victim.key for victim in evict}
    outdated = sorted(row.key for row in table.rows.values() if row.is_outdated)
    cancel = (*(row.key for row in due), *outdated)
    return StepPlan(
        # A copy that is not shown yet, or that is superseded, may be a victim.
        start=tuple(
            key for key in (*_views_to_make(table, views), *admission.start) if key not in victims
        ),
        ask=tuple(key for key in admission.ask if key not in victims),
        evict=evict,
        waiting=MappingProxyType(admission.waiting),
        suspended=frozenset(suspended),
        queued=frozenset(admission.queued),
        cancel=tuple(key for key in cancel if _is_running(table.row(key))),
        remove=tuple(row.key for row in due if _may_be_removed(row)),
        discard=tuple(row.key for row in due if _may_be_discarded(row)),
        folders=tuple(row.key for row in due if _may_lose_folder(row)),
        replace=tuple(admission.replace),
        kept=MappingProxyType(dict(kept)),
        wake_at=min(
            [*(at for at in due_at.values() if at > table.now), *later.values()], default=None
        ),
        unwanted_since=MappingProxyType(since),
        making_room=admission.making_room,
        relieving=admission.relieving,
    )


def _views_to_make(table: Table, due: Collection[Row]) -> list[str]:
    """The copies whose views are made now: beside the downloads, as many at a time as those."""
    running = sum(row.is_active and row.lacks_only_view for row in table.rows.values())
    order = sorted(due, key=lambda row: not row.is_awaited)
    return [row.key for row in order[: max(0, table.max_downloads - running)]]


def _decide_downloads(
    table: Table, before: StepPlan, candidates: Collection[Row], later: Collection[str]
) -> QueueDecision:
    due = {row.key: row.requester(table.now) for row in candidates if row.key not in later}
    return decide_downloads(
        table.ledger,
        [row.key for row in candidates],
        due=due.keys(),
        places=Places(
            table.max_downloads,
            [
                replace(row.hold or Hold(), awaited=row.is_awaited)
                for row in table.rows.values()
                if row.is_active and not row.lacks_only_view
            ],
            {key: requester.namespace for key, requester in due.items() if requester},
            frozenset(row.key for row in candidates if row.is_awaited),
        ),
        may_evict=table.pods_known,
        patient=table.patient,
        asked=[row.key for row in table.rows.values() if row.is_active and row.reserved == 0],
        making_room=before.making_room,
        relieving=before.relieving,
    )


def _is_running(row: Row) -> bool:
    return row.is_active and not row.is_cancelling


def _may_be_removed(row: Row) -> bool:
    return row.copy.is_published and not row.is_active and not row.is_in_use


def _may_be_discarded(row: Row) -> bool:
    is_left = row.copy.is_left or row.copy.evicted is not None
    return is_left and not row.copy.is_published and not row.is_active


def _may_lose_folder(row: Row) -> bool:
    is_gone = row.copy.found is Found.NOTHING and not row.is_active
    return row.has_folder and is_gone and not row.is_in_use
