"""How planned downloads start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.structs.failures import public_uri
from agent.structs.grants import bound_origin
from agent.structs.log import log

if TYPE_CHECKING:
    from agent.control.background_reads import BackgroundReads
    from agent.control.node_events import NodeEvents
    from agent.control.node_state import NodeState
    from agent.control.rows import Row, Table
    from agent.control.step_plan import StepPlan
    from agent.jobs.reservations import Reservations
    from agent.jobs.workers import Workers


class Starts:
    """Starts downloads as planned, each with its room reserved."""

    def __init__(
        self,
        state: NodeState,
        workers: Workers,
        reservations: Reservations,
        background_reads: BackgroundReads,
        node_events: NodeEvents,
    ) -> None:
        self._state = state
        self._workers = workers
        self._reservations = reservations
        self._background_reads = background_reads
        self._node_events = node_events

    def carry_out(self, plan: StepPlan, table: Table) -> None:
        """Start the downloads of a plan. `table` has the rows as they are now."""
        self._reservations.hold(plan.making_room)
        for key in plan.start:
            self._start(table.row(key), table.now, has_room=True)
        for key in plan.ask:
            self._start(table.row(key), table.now, has_room=False)
        for key, task in self._state.tasks.items():
            # Of the connections, too, what a pod waits for gets the first.
            if table.row(key).is_awaited:
                task.urgent.set()
            else:
                task.urgent.clear()

    def _start(self, row: Row, now: float, *, has_room: bool) -> None:
        requester, request = row.requester(now), row.request
        if requester is None or request is None:
            # Node and pods were read anew since the plan was made, and the model is not listed.
            return
        if not has_room:
            self._reservations.ask(row.key)
        elif not self._reservations.start(row.key):
            # A download has grown since the plan was made: the next plan knows.
            return
        log.info("Started a download", key=row.key, uri=public_uri(request.uri))
        self._background_reads.stop(row.key)
        self._state.tasks[row.key] = self._workers.start(
            request.by(requester),
            now,
            in_use=row.is_in_use,
            origin=bound_origin(row.copy.access, requester, request.requesters),
        )
        if row.copy.evicted is not None and has_room and not row.failures and row.referrer:
            self._node_events.returning(row.granted_owners, row.referrer)
