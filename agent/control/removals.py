"""How copies go: those that nobody wants, those that are not for who wants them, and evictions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.control.node_events import display_names
from agent.structs.log import log
from agent.structs.records import Evicted
from agent.structs.sizes import EvictionReason
from crds.quantity import format_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from agent.capacity.download_queue import Victim
    from agent.control.background_reads import BackgroundReads
    from agent.control.node_events import NodeEvents
    from agent.control.node_state import NodeState
    from agent.control.rows import Row, Table
    from agent.control.step_plan import StepPlan
    from agent.disk.on_disk import Disk
    from agent.disk.store import Store
    from agent.structs.manifest import CacheName
    from agent.structs.options import Options

# The wait after a removal that failed.
REMOVE_SECONDS = 30.0
# How long a file system may take to give back what was deleted.
SETTLE_SECONDS = 5.0


class Removals:
    """Takes copies away as planned, and reports evictions as Events. Times are monotonic."""

    def __init__(
        self,
        store: Store,
        state: NodeState,
        background_reads: BackgroundReads,
        node_events: NodeEvents,
        options: Options,
    ) -> None:
        self._store = store
        self._state = state
        self._background_reads = background_reads
        self._node_events = node_events
        self._options = options

    def keep_notices(self, plan: StepPlan) -> bool:
        """Withdraw the notices of copies that are not evicted by this plan, if there are any."""
        return self._state.notices.retain({victim.key for victim in plan.evict})

    def is_due(self, plan: StepPlan, now: float) -> bool:
        """Whether anything of a plan is to be done now. Evictions wait until they were reported."""
        notices = self._state.notices
        return replace(plan, evict=()).destroys or any(
            notices.of(one.key) is None or notices.is_due(one.key, now) for one in plan.evict
        )

    def carry_out(self, plan: StepPlan, table: Table) -> None:
        """Cancel downloads, and take one copy away: the next plan says whether another has to go.

        `table` is what was planned by. Copies that are to be evicted get their notice first.
        """
        self.keep_notices(plan)
        for key in plan.cancel:
            self._state.tasks[key].cancelled.set()
        for victim in plan.evict:
            self._report_eviction(victim, table)
        for key in plan.folders:
            self._delete_folder(key, table.now)
        doomed = (*plan.remove, *plan.discard)
        due = [one for one in plan.evict if self._state.notices.is_due(one.key, table.now)]
        if doomed:
            self._remove(table.row(doomed[0]), table.now)
        elif plan.replace:
            self._drop_superseded(table.row(plan.replace[0]), table.now)
        elif due:
            self._evict(due[0], table)
        else:
            return
        self._state.rescan_at = max(self._state.rescan_at, table.now + SETTLE_SECONDS)

    def set_aside(self, row: Row, now: float) -> None:
        """Take a copy out of models/ that nobody may have now; its files wait for who may."""
        manifest = row.manifest
        if manifest is not None and self._has_gone(
            row.key, now, "Could not set a model aside", lambda: self._store.set_aside(manifest)
        ):
            log.info("Set a copy aside that is not for those who ask for it", key=row.key)
        self._state.inventory.look_at(row.key)

    def _remove(self, row: Row, now: float) -> None:
        """Remove a copy that is no longer wanted, with all that is noted of it."""
        key = row.key
        if self._has_gone(key, now, "Could not remove a model", lambda: self._store.remove(key)):
            self._removed(row, "no cache wants the model on this node")
        self._state.inventory.look_at(key)

    def _drop_superseded(self, row: Row, now: float) -> None:
        """Delete a copy beside which the requested version does not fit; its notes stay."""
        key = row.key
        if self._has_gone(key, now, "Could not remove a copy", lambda: self._store.drop(key)):
            self._removed(row, "another version is requested, and does not fit beside this one")
        self._state.inventory.look_at(key)

    def _removed(self, row: Row, why: str) -> None:
        self._state.removal_at.pop(row.key, None)
        log.info("Removed a model", key=row.key, why=why)
        if row.copy.is_published:
            self._options.counts.removed()
            self._node_events.removed(row.granted_owners, row.copy.tree_bytes, why)

    def _delete_folder(self, key: str, now: float) -> None:
        """Delete the folder of the volume of a model that nobody wants, has or mounts here."""
        try:
            self._state.inventory.delete_folder(key)
        except OSError as error:
            self._state.removal_at[key] = now + REMOVE_SECONDS
            log.warning("Could not delete the folder of a volume", key=key, reason=str(error))

    def _report_eviction(self, victim: Victim, table: Table) -> None:
        """Report a copy as evicted before it goes, unless that was done."""
        if self._state.notices.of(victim.key) is not None:
            return
        time = self._options.now()
        note = Evicted(
            time=time,
            size=table.row(victim.key).copy.tree_bytes,
            reason=victim.reason,
            message=_message(victim, table, time),
        )
        self._state.notices.add(victim.key, note, table.now)

    def _evict(self, victim: Victim, table: Table) -> None:
        key, row = victim.key, table.row(victim.key)
        note = self._state.notices.of(key)
        assert note is not None  # noqa: S101
        newcomer = table.row(victim.newcomer)
        if victim.newcomer:
            self._state.patience.made(newcomer.key, table.ledger.holding(newcomer.key).owners)
        if self._has_gone(
            key, table.now, "Could not evict a model wholly", lambda: self._store.evict(key, note)
        ):
            self._state.removal_at.pop(key, None)
        inventory = self._state.inventory
        inventory.evicted(key, note)
        if inventory.copy(key).evicted is not None:
            log.info("Evicted a model", key=key, reason=note.reason.value, bytes=note.size)
            self._options.counts.evicted(note.reason, note.size)
            self._node_events.evicted(row.granted_owners, note)

    def _has_gone(self, key: str, now: float, problem: str, take_away: Callable[[], None]) -> bool:
        self._background_reads.stop(key)
        try:
            take_away()
        except OSError as error:
            self._state.removal_at[key] = now + REMOVE_SECONDS
            log.warning(problem, key=key, reason=str(error))
            return False
        return True


def _message(victim: Victim, table: Table, now: datetime) -> str:
    """What was evicted, why and when."""
    row = table.row(victim.key)
    group = table.ledger.groups.get(victim.group)
    high = group.high_percent if group else 0
    if victim.reason is EvictionReason.MADE_ROOM:
        newcomers = _tellable(table.row(victim.newcomer).owners, row.granted_owners)
        why = f"to make room for {display_names(newcomers)}"
    elif victim.reason is EvictionReason.LIMIT_EXCEEDED:
        limit = format_quantity(group.limit if group else 0)
        why = (
            f"because the models of the group {victim.group} took more than {high}% of its "
            f"storageLimit of {limit}"
        )
    elif victim.reason is EvictionReason.REQUESTED:
        asked = row.asked.evict
        why = f"because that was requested at {_time(asked)}" if asked else "by request"
    else:
        why = _pressure(high, table.disk)
    last_used = row.copy.usage.last_used_time if row.copy.usage else None
    used = f"last used at {_time(last_used)}" if last_used else "never used"
    size = format_quantity(row.copy.tree_bytes)
    return f"{size} were freed at {_time(now)} {why}; {used}"


def _pressure(high: int, disk: Disk) -> str:
    kubelet = disk.kubelet
    if kubelet is None or kubelet.mark >= disk.capacity * high // 100:
        return f"because more than {high}% of the node's disk were taken"
    return (
        f"because less than {kubelet.kept_percent}% of the node's disk were available, which the "
        f"kubelet uses too, with {kubelet.first}"
    )


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def _tellable(newcomers: Iterable[CacheName], names: Iterable[CacheName]) -> list[CacheName]:
    """The caches for which room was made, without other namespaces' than the evicted copy's."""
    namespaces = {name.namespace for name in names}
    return [one for one in newcomers if not one.namespace or {one.namespace} == namespaces]
