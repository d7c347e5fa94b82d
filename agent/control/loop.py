"""The control loop: one thread that makes the disk match the LocalModelNode, step by step.

Between steps it waits for events. A step has five phases:

1. **observe**: take in the events, and look at the disk where that is due (node_state.py).
2. **rows**: make the table, all that is known now, with one row for each key (rows.py).
3. **plan**: decide by the table alone (step_plan.py).
4. **act**: take away, start downloads, checks and reads. Before anything is taken away, node and
   pods are read anew, and rows and plan are made again.
5. **report**: write the status, made from the rows as they are after acting (reporter.py).
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.cluster.node_api import ApiUnavailableError, parse_node
from agent.cluster.observed import Observed, PodsSeen
from agent.cluster.versions import Versions
from agent.control.access_checks import Checks
from agent.control.background_reads import BackgroundReads
from agent.control.finished_downloads import Outcomes
from agent.control.neighbours import neighbourhoods
from agent.control.node_events import LogSink, NodeEvents
from agent.control.node_state import NodeState
from agent.control.owners import TRUST_GRACES
from agent.control.removals import Removals
from agent.control.reporter import Reporter
from agent.control.snapshot import Snapshot
from agent.control.starts import Starts
from agent.control.step_counts import StepCounts
from agent.control.step_plan import NO_PLAN, StepPlan, plan_step
from agent.control.waiting import in_queue, waiting_of
from agent.control.waiting_pods import WaitingPods
from agent.jobs.reservations import Reservations
from agent.jobs.workers import (
    AccessResult,
    Digested,
    End,
    Finished,
    Scrubbed,
    Workers,
)
from agent.structs.log import log

if TYPE_CHECKING:
    from datetime import datetime

    from agent.cluster.events import PodSink
    from agent.cluster.node_api import NodeApi, NodeObject
    from agent.cluster.pod_mounts import PodMounts
    from agent.control.neighbours import Peers
    from agent.control.node_events import NodeEventSink
    from agent.control.pod_usage import PodSource
    from agent.control.rows import Row, Table
    from agent.control.startup_taint import StartupTaint
    from agent.disk.store import Store
    from agent.jobs.workers import Fetching
    from agent.structs.options import Options

# Waits after a removal that could not be confirmed, and a step that failed.
CONFIRM_SECONDS = 5.0
FAULT_SECONDS = 1.0


Event = Observed | PodsSeen | End


class Loop:
    """Makes the disk match the LocalModelNode. Without `pods`, the node has none.

    `peers` follow what the LocalModelNode says of them.
    """

    def __init__(
        self,
        api: NodeApi,
        store: Store,
        fetching: Fetching,
        options: Options,
        *,
        pods: PodSource | None = None,
        events: NodeEventSink | None = None,
        startup_taint: StartupTaint | None = None,
        pod_sink: PodSink | None = None,
        peers: Peers | None = None,
    ) -> None:
        self._api = api
        self._options = options
        self._pods = pods
        self._peers = peers
        self._stopped = threading.Event()
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        # Observe, rows.
        reservations = Reservations()
        self._state = state = NodeState(store, reservations, options)
        self._versions = Versions()
        # Plan.
        self._plan = NO_PLAN
        self._confirm_at = 0.0
        # Act.
        self._workers = Workers(
            fetching, store, reservations, self._events.put, counts=options.counts
        )
        self._node_events = NodeEvents(events or LogSink())
        self._background_reads = BackgroundReads(
            self._workers, state.inventory, options, self._report_damage
        )
        self._starts = Starts(
            state, self._workers, reservations, self._background_reads, self._node_events
        )
        self._removals = Removals(store, state, self._background_reads, self._node_events, options)
        self._outcomes = Outcomes(state.inventory, state.retries, self._node_events, options)
        self._checks = Checks(
            self._workers, state.inventory, state.retries, self._node_events, options
        )
        # Report.
        self._waiting_pods = WaitingPods(pod_sink) if pod_sink else None
        self._reporter = Reporter(api, options.progress, peers.endpoint if peers else None)
        self._startup_taint = startup_taint
        # For other threads.
        self._step_counts = StepCounts(options.counts)
        self._is_node_read = False
        self._reported_at: datetime | None = None
        # What the loop knew after its last step; None before the first.
        self.snapshot: Snapshot | None = None
        # When a step or a wait last began, also after a step that failed (monotonic).
        self.moved_at = options.monotonic()
        if pods is None:
            state.pod_usage.observe(())

    def run(self) -> None:
        """Work until `stop`."""
        threading.Thread(
            target=self._api.watch, args=(self.observe, self._stopped), name="watch", daemon=True
        ).start()
        if self._pods is not None:
            threading.Thread(
                target=self._pods.watch,
                args=(self.observe_pods, self._stopped),
                name="pods",
                daemon=True,
            ).start()
        wake_at = self._options.monotonic()
        while not self._stopped.is_set() and not self.begins_anew:
            try:
                self.wait(wake_at)
                began = self._options.monotonic()
                wake_at = self.step()
                self._options.counts.stepped(self._options.monotonic() - began)
            except Exception:
                # The loop outlives its own faults: they are logged, and the step is tried again.
                log.exception("Step failed unexpectedly")
                wake_at = self._options.monotonic() + FAULT_SECONDS

    @property
    def begins_anew(self) -> bool:
        """Whether `run` has ended since the process must begin anew, on another disk."""
        return self._state.disk.begins_anew

    def stop(self) -> None:
        """End `run`; downloads are cancelled. May be called from any thread."""
        self._stopped.set()
        self._events.put(None)

    def observe(self, node: NodeObject | None) -> None:
        """Put the LocalModelNode as it is now into the queue. May be called from any thread."""
        self._events.put(Observed(node))

    def observe_pods(self, pods: tuple[PodMounts, ...] | None) -> None:
        """Put the pods as they are now into the queue. May be called from any thread."""
        self._events.put(PodsSeen(pods))

    def wait(self, until: float) -> None:
        """Take in all events that are there; wait for the first one until then (monotonic)."""
        self.moved_at = self._options.monotonic()
        timeout = max(0.0, until - self.moved_at)
        with suppress(queue.Empty):
            self._observe(self._events.get(timeout=timeout))
            while True:
                self._observe(self._events.get_nowait())

    def step(self) -> float:
        """Observe, plan, act and report once.

        Returns when the next step is due if no event comes before (monotonic).
        """
        now = self.moved_at = self._options.monotonic()
        if self._stopped.is_set():
            self._state.cancel_all()
            return now
        if now >= self._state.rescan_at or self._state.disk.has_moved():
            self._look_at_disk(now)
        self._state.make_folders()
        table = self._state.table(now)
        plan = plan_step(table, self._plan)
        if self._removals.keep_notices(plan):
            table = self._state.table(now)
        table, plan, again_at = self._take_away(table, plan)
        self._starts.carry_out(plan, table)
        self._plan = plan
        if self._state.tasks:
            self._state.inventory.measure()
            table = self._state.table(now)
        if table.disk_failure is None:
            self._background_reads.begin(self._state.tasks, self._state.verifications())
            self._checks.begin(table)
        reports_at = self._reports(table)
        self._publish(table)
        times = (
            plan.wake_at,
            again_at,
            self._state.notices.next_after(now),
            self._state.request_at(now),
        )
        wake_at = [self._state.rescan_at, *reports_at, *(at for at in times if at is not None)]
        if self._state.tasks:
            wake_at.append(now + self._options.progress)
        if table.disk_failure is None and self._checks.next_at is not None:
            wake_at.append(self._checks.next_at)
        return min(wake_at)

    # Observe

    def _observe(self, event: Event | None) -> None:
        if isinstance(event, Observed):
            self._observe_node(event.node, fresh=False)
        elif isinstance(event, PodsSeen):
            self._state.pod_usage.observe(event.pods)
        elif isinstance(event, Finished):
            request = self._state.requests.get(event.request.key)
            spent = self._state.observe_end(event)
            self._outcomes.observe(event, request, spent)
            self._state.look_after_failure(event)
        elif isinstance(event, AccessResult):
            key = event.attempt.key
            request = self._state.requests.get(key)
            self._checks.observe(event, request, is_busy=key in self._state.tasks)
        elif isinstance(event, Digested | Scrubbed):
            self._background_reads.observe(event)

    def _observe_node(self, found: NodeObject | None, *, fresh: bool) -> None:
        node = None
        self._is_node_read = True
        if found is not None:
            if self._versions.went_back(found, fresh=fresh):
                self._hold_all()
            node = parse_node(found)
            self._reporter.seen(str(found["metadata"]["resourceVersion"]))
        if self._state.observe_node(node):
            self._plan = NO_PLAN
        if self._peers is not None:
            self._peers.follow(neighbourhoods(node))
        if node is not None:
            self._node_events.about(node.metadata.uid or "")
            self._node_events.retain(self._state.requests)
            self._node_events.invalid_requests(self._state.node_requests.problems)
            self._checks.retain(self._state.requests)

    def _hold_all(self) -> None:
        """Take nothing away for a while: the state that is observed now lacks later changes."""
        seconds = TRUST_GRACES * self._options.grace
        self._plan = NO_PLAN
        self._confirm_at = self._options.monotonic() + seconds
        log.warning(
            "The API server's state is older than before, as after a restore of etcd: nothing is "
            "taken away for a while",
            seconds=seconds,
        )

    def _look_at_disk(self, now: float) -> None:
        if self._state.look_at_disk(now):
            self._node_events.disk(self._state.disk.failure)
        self._background_reads.retain(self._state.inventory.copies)
        self._workers.retain(self._state.requests)

    # Act

    def _take_away(self, table: Table, plan: StepPlan) -> tuple[Table, StepPlan, float | None]:
        """Take away what the plan says, and set aside copies that are not for who wants them.

        Returns the rows as they are then, the plan to go on with, and when to take away the next.
        """
        now, again_at = table.now, None
        if self._removals.is_due(plan, now):
            is_confirmed = self._confirm(now)
            # One copy is taken away in a step, after one look; the next follows at once.
            again_at = now if is_confirmed else self._confirm_at
            table = self._state.table(now)
            if is_confirmed:
                plan = plan_step(table, self._plan)
                self._removals.carry_out(plan, table)
                table = self._state.table(now)
        if self._withdrawn(table):
            may_go = self._confirm(now)
            table = self._state.table(now)
            withdrawn = self._withdrawn(table) if may_go else []
            for row in withdrawn:
                self._removals.set_aside(row, now)
            if withdrawn:
                table = self._state.table(now)
                plan = plan_step(table, self._plan)
        return table, plan, again_at if plan.destroys else None

    def _withdrawn(self, table: Table) -> list[Row]:
        if table.disk_failure is not None:
            return []
        return [row for row in table.rows.values() if row.is_withdrawn]

    def _confirm(self, now: float) -> bool:
        """Read node and pods anew: nothing is taken away by what was observed some time ago."""
        if now < self._confirm_at:
            return False
        try:
            self._observe_node(self._api.read(), fresh=True)
            pods = self._pods.read() if self._pods is not None else ()
        except ApiUnavailableError as error:
            return self._wait_for_api(now, str(error))
        if pods is None:
            # One server may refuse for a moment what the watch still has.
            return self._wait_for_api(now, "it does not let the agent see pods")
        self._state.pod_usage.observe(pods)
        return now >= self._confirm_at

    def _wait_for_api(self, now: float, why: str) -> bool:
        self._confirm_at = now + CONFIRM_SECONDS
        log.warning("Removal waits for the API server", reason=why)
        return False

    def _report_damage(self, key: str, problem: str) -> None:
        self._node_events.damaged(self._state.row_of_copy(key).granted_owners, problem)

    # Report

    def _reports(self, table: Table) -> list[float]:
        """Report, and decide on the startup taint by the report. Returns when each is due again."""
        due = [self._report(table)]
        if self._startup_taint is not None:
            models = self._reporter.models
            due.append(self._startup_taint.decide(table.wanted, models, self._api, table.now))
        return [at for at in due if at is not None]

    def _publish(self, table: Table) -> None:
        """Publish a snapshot; count and report what is new in these rows."""
        self._step_counts.observe(table)
        self._node_events.downloading(table)
        plan, now, has_node = self._plan, self._options.now(), self._state.node is not None
        if not has_node or not self._reporter.is_behind:
            self._reported_at = now
        self.snapshot = Snapshot(
            table,
            now,
            self._reporter.models if has_node else (),
            self._reporter.conditions if has_node else (),
            waiting=frozenset(plan.waiting) | plan.queued | plan.suspended,
            is_node_read=self._is_node_read,
            reported_at=self._reported_at,
        )

    def _report(self, table: Table) -> float | None:
        node, plan = self._state.node, self._plan
        if node is None:
            return None
        self._state.owners.remember(table.rows.values())
        waiting = waiting_of(plan.waiting, pods_known=table.pods_known, kubelet=table.disk.kubelet)
        if table.pods_known:
            self._node_events.waiting(waiting, table)
        # A download that has failed is reported with its failure, and not as queued.
        queued = [key for key in plan.queued if not table.row(key).retries]
        waiting |= in_queue(queued, self._options.max_downloads)
        if self._waiting_pods is not None:
            self._waiting_pods.observe(table, waiting, plan.suspended)
        again_at = self._reporter.report(
            node, table, waiting, plan.suspended, self._options.now(), kept=plan.kept
        )
        if again_at is None:
            self._state.notices.are_written(table.now)
        return again_at
