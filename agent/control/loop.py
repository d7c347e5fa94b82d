"""The controller loop: one thread that hears events, plans, acts and reports."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from agent.capacity.ledger import Ledger
from agent.capacity.patience import Patience
from agent.cluster.node_api import ApiUnavailableError, parse_node
from agent.cluster.observed import Observed, PodsSeen
from agent.cluster.versions import Versions
from agent.control.access_checks import Checks
from agent.control.accounts import make_ledger
from agent.control.background_reads import BackgroundReads
from agent.control.facts import (
    in_queue,
    make_facts,
    of_services,
    referrer_of,
    waiting_of,
)
from agent.control.node_events import LogSink, NodeEvents
from agent.control.outcomes import Outcomes
from agent.control.owners import TRUST_GRACES, Owners
from agent.control.plan import StepPlan, View, plan_step
from agent.control.pod_usage import PodUsage
from agent.control.removals import Removals
from agent.control.reporter import Reporter
from agent.control.retries import Retries
from agent.control.serving import attempts, awaits_turn, is_withdrawn, serves
from agent.control.wanted import requests
from agent.disk.inventory import Inventory
from agent.disk.watch import DiskWatch
from agent.jobs.reservations import Reservations
from agent.jobs.workers import (
    AccessResult,
    Digested,
    End,
    Finished,
    Scrubbed,
    Task,
    Workers,
)
from agent.structs.failures import DISK_KINDS, FailureKind, public_uri
from agent.structs.grants import bound_origin

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from agent.cluster.node_api import NodeApi, NodeObject
    from agent.cluster.pods import PodMounts
    from agent.control.node_events import NodeEventSink
    from agent.control.pod_usage import PodSource
    from agent.disk.on_disk import OnDisk
    from agent.disk.store import Store
    from agent.jobs.workers import Fetching
    from agent.structs.manifest import Access, Manifest
    from agent.structs.options import Options
    from agent.structs.requests import Request
    from crds.node import LocalModelNode

# Waits after a removal that could not be confirmed, and a step that failed.
CONFIRM_SECONDS = 5.0
FAULT_SECONDS = 1.0
# How long what a source told is believed, where others would go for it.
LISTED_SECONDS = 300.0
# How long a file system may take to give back what was deleted.
SETTLE_SECONDS = 5.0

log = structlog.get_logger(__name__)


Event = Observed | PodsSeen | End


class Loop:
    """Makes the disk match the LocalModelNode. Without `pods`, the node has none."""

    def __init__(
        self,
        api: NodeApi,
        store: Store,
        fetching: Fetching,
        options: Options,
        *,
        pods: PodSource | None = None,
        events: NodeEventSink | None = None,
    ) -> None:
        self._api = api
        self._store = store
        self._options = options
        self._pods = pods
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._reservations = Reservations()
        self._workers = Workers(fetching, store, self._reservations, self._events.put)
        self._inventory = Inventory(store)
        self._disk = DiskWatch(store, self._inventory)
        self._pod_usage = PodUsage(self._inventory)
        self._users: Mapping[str, tuple[PodMounts, ...]] | None = None
        self._owners = Owners(self._inventory, options)
        self._reporter = Reporter(api, options.progress)
        self._node_events = NodeEvents(events or LogSink())
        self._background_reads = BackgroundReads(
            self._workers, self._inventory, options, self._tell_damage
        )
        self._removals = Removals(
            store,
            self._inventory,
            self._background_reads,
            owners=self._owners,
            news=self._node_events,
            options=options,
        )
        self._stopped = threading.Event()
        self._node: LocalModelNode | None = None
        self._requests: dict[str, Request] = {}
        # What services refer to.
        self._of_services: frozenset[str] = frozenset()
        self._tasks: dict[str, Task] = {}
        self._retries = Retries(options, store)
        self._outcomes = Outcomes(self._inventory, self._retries, self._node_events, options)
        self._checks = Checks(
            self._workers, self._inventory, self._retries, self._node_events, options
        )
        self._ledger = Ledger()
        self._patience = Patience()
        # When a source told the size of what does not fit (monotonic).
        self._listed: dict[str, float] = {}
        self._last = StepPlan()
        self._confirm_at = 0.0
        self._versions = Versions()
        self._rescan_at = 0.0
        if pods is None:
            self._pod_usage.see(())

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
                wake_at = self.step()
            except Exception:
                # The loop outlives its own faults: they are seen in the log, and tried again.
                log.exception("Step failed unexpectedly")
                wake_at = self._options.monotonic() + FAULT_SECONDS

    @property
    def begins_anew(self) -> bool:
        """Whether `run` has ended since the process must begin anew, on another disk."""
        return self._disk.begins_anew

    def stop(self) -> None:
        """End `run`; downloads are cancelled. May be called from any thread."""
        self._stopped.set()
        self._events.put(None)

    def observe(self, node: NodeObject | None) -> None:
        """Tell the loop what the LocalModelNode is now. May be called from any thread."""
        self._events.put(Observed(node))

    def observe_pods(self, pods: tuple[PodMounts, ...] | None) -> None:
        """Tell the loop what the pods are now. May be called from any thread."""
        self._events.put(PodsSeen(pods))

    def wait(self, until: float) -> None:
        """Take in the events that are there; wait for the first of them until then (monotonic)."""
        timeout = max(0.0, until - self._options.monotonic())
        with suppress(queue.Empty):
            self._take(self._events.get(timeout=timeout))
            while True:
                self._take(self._events.get_nowait())

    def step(self) -> float:
        """Plan, act and report once. Returns when to come back without an event (monotonic)."""
        now = self._options.monotonic()
        if self._stopped.is_set():
            for task in self._tasks.values():
                task.cancelled.set()
            return now
        if now >= self._rescan_at or self._disk.has_moved():
            self._rescan(now)
        plan = self._plan(now)
        allowed = plan.destroys and self._confirm(now)
        if allowed:
            plan = self._plan(now)
            self._destroy(plan, now)
        if self._withdraw(now):
            plan = self._plan(now)
        self._reservations.hold(plan.making_room)
        for key in (*plan.start, *plan.ask):
            self._start(key, now, has_room=key not in plan.ask)
        self._last = plan
        if self._disk.failure is None:
            self._background_reads.begin(self._tasks)
            self._checks.begin(self._requests, self._tasks)
        return min(self._wake_times(plan, allowed=allowed, now=now))

    def _start(self, key: str, now: float, *, has_room: bool) -> None:
        if not has_room:
            self._reservations.ask(key)
        elif not self._reservations.start(key):
            # A download has grown since the plan was made: the next plan knows.
            return
        copy, request = self._inventory.copy(key), self._attempt(key)
        log.info("Started a download", key=key, uri=public_uri(request.uri))
        self._background_reads.stop(key)
        self._tasks[key] = self._workers.start(
            request,
            now,
            in_use=self._in_use(key),
            origin=bound_origin(copy.access, request.requester, self._requests[key].requesters),
        )
        if copy.evicted is None or not has_room or self._retries.failures(key):
            return
        who = referrer_of(key, self._of_services, self._users or {})
        if who:
            self._node_events.returning(self._owners.granted(key), who)

    def _wake_times(self, plan: StepPlan, *, allowed: bool, now: float) -> Iterator[float]:
        yield self._rescan_at
        if plan.wake_at is not None:
            yield plan.wake_at
        if plan.destroys:
            # One thing is taken away in a step, after one look; the next follows at once.
            yield now if allowed else self._confirm_at
        if self._tasks:
            yield now + self._options.progress
        report_at = self._report(now)
        if report_at is not None:
            yield report_at
        if self._disk.failure is None and self._checks.next_at is not None:
            yield self._checks.next_at

    # Events

    def _take(self, event: Event | None) -> None:
        if isinstance(event, Observed):
            self._take_node(event.node, fresh=False)
        elif isinstance(event, PodsSeen):
            self._pod_usage.see(event.pods)
        elif isinstance(event, Finished):
            self._take_end(event)
        elif isinstance(event, AccessResult):
            self._checks.take(event, self._requests, self._tasks)
        elif isinstance(event, Digested | Scrubbed):
            self._background_reads.take(event)

    def _take_node(self, found: NodeObject | None, *, fresh: bool) -> None:
        node = None
        if found is not None:
            if self._versions.went_back(found, fresh=fresh):
                self._hold_all()
            node = parse_node(found)
            self._reporter.seen(str(found["metadata"]["resourceVersion"]))
        known = self._node
        if known is not None and (node is None or node.metadata.uid != known.metadata.uid):
            log.info("LocalModelNode is gone", uid=known.metadata.uid)
            self._last = StepPlan()
            self._owners.begin_anew()
        self._node = node
        if node is None:
            return
        self._node_events.about(node.metadata.uid or "")
        self._owners.take(node)
        self._requests = requests(node.spec.local_models)
        self._of_services = of_services(node.spec.local_models)
        self._retries.keep(self._requests)
        self._patience.keep(self._requests, self._options.monotonic())
        self._listed = {key: at for key, at in self._listed.items() if key in self._requests}
        self._reservations.keep(self._requests)
        self._node_events.keep(self._requests)

    def _hold_all(self) -> None:
        """Take nothing away for a while: the state that is here now lacks what came after it."""
        seconds = TRUST_GRACES * self._options.grace
        self._last = StepPlan()
        self._confirm_at = self._options.monotonic() + seconds
        log.warning(
            "The API server's state is older than before, as after a restore of etcd: nothing is "
            "taken away for a while",
            seconds=seconds,
        )

    def _take_end(self, end: Finished) -> None:
        key, now = end.request.key, self._options.monotonic()
        del self._tasks[key]
        self._reservations.end(key)
        self._patience.ended(key, now, is_success=end.is_success)
        self._listed.pop(key, None)
        if end.no_room:
            self._listed[key] = now
        self._outcomes.take(end, self._requests)
        if end.error is not None and end.error.kind in DISK_KINDS:
            # What is known of the copies stays, and the disk is looked at first.
            self._rescan_at = 0.0
        elif not end.is_success:
            self._inventory.look_at(key)
            self._retries.published(self._published())

    # What is known

    def _rescan(self, now: float) -> None:
        """Look at the disk. What a download works on is its own until it ends."""
        before = self._disk.failure
        self._rescan_at = now + self._disk.look(self._tasks)
        failure = self._disk.failure
        if before is not None and failure is None:
            self._retries.disk_is_back()
        if failure is not None and failure.kind is FailureKind.OTHER_DISK:
            for task in self._tasks.values():
                task.cancelled.set()
            if before is None or before.kind is not FailureKind.OTHER_DISK:
                self._node_events.other_disk(failure.message)
        self._retries.published(self._published())
        self._background_reads.keep(self._inventory.copies)
        self._removals.keep(self._inventory.copies)
        self._workers.keep(self._requests)

    def _published(self) -> dict[str, Access | None]:
        return {key: copy.access for key, copy, _ in self._inventory.published()}

    def _plan(self, now: float) -> StepPlan:
        self._users = self._pod_usage.by_key(self._owners.all())
        mounted = None if self._users is None else frozenset(self._users)
        self._pod_usage.note(mounted, self._options.now())
        copies = self._inventory.copies.items()
        node = self._node
        wanted = None if node is None else tuple(entry.key for entry in node.spec.local_models)
        keep_until = self._removals.retry_at | self._owners.doubts()
        self._ledger = self._make_ledger(now, keep_until)
        self._reservations.see(self._ledger)
        return plan_step(
            View(
                now=now,
                grace=self._options.grace,
                max_downloads=self._options.max_downloads,
                wanted=wanted,
                ready=frozenset(key for key, copy in copies if self._serves(key, copy)),
                published=frozenset(key for key, copy in copies if copy.is_published),
                staged=frozenset(key for key, copy in copies if copy.is_left),
                active=frozenset(self._tasks),
                cancelling=frozenset(
                    key for key, task in self._tasks.items() if task.cancelled.is_set()
                ),
                holds={
                    key: task.hold(now, self._requests.get(key))
                    for key, task in self._tasks.items()
                },
                owners={key: self._attempt(key).requester.namespace for key in self._requests},
                outdated=frozenset(key for key in self._tasks if self._is_outdated(key)),
                refused=frozenset(wanted or ()) - self._requests.keys(),
                suspended=frozenset(
                    key
                    for key, request in self._requests.items()
                    if awaits_turn(request, self._inventory.copy(key))
                ),
                retry_at=self._retries.due(
                    attempts(request, self._inventory.copy(key))
                    for key, request in self._requests.items()
                ),
                keep_until=keep_until,
                unwanted_since=self._last.unwanted_since,
                evicted=frozenset(key for key, copy in copies if copy.evicted is not None),
                ledger=self._ledger,
                mounted=mounted,
                making_room=self._last.making_room,
                relieving=self._last.relieving,
                patient=frozenset(
                    key
                    for key in self._requests
                    if self._patience.hinders(key, self._ledger.model(key).owners, now)
                ),
                disk_ready=self._disk.failure is None,
            )
        )

    def _attempt(self, key: str) -> Request:
        """The attempt that is made next for what is asked for."""
        return self._retries.next_attempt(attempts(self._requests[key], self._inventory.copy(key)))

    def _is_outdated(self, key: str) -> bool:
        request, running = self._requests.get(key), self._tasks[key].request.requester
        if request is None:
            return False
        # Others' sources do not fill a folder once the first owner is there.
        return running not in request.deciding

    def _make_ledger(self, now: float, keep_until: Mapping[str, float]) -> Ledger:
        if self._node is None:
            return Ledger()
        used: Collection[str] = self._users or ()
        return make_ledger(
            self._node,
            self._inventory.copies,
            self._inventory.space,
            now=self._options.now(),
            reserved=self._reservations.reserved,
            mounted=used,
            held=keep_until.keys() | set(used),
            foreign=self._inventory.foreign,
            resting=lambda key, copy: (
                key not in self._tasks
                and self._removals.retry_at.get(key, now) <= now
                and self._serves(key, copy)
            ),
            learned=self._reservations.learned,
            listed={key for key, at in self._listed.items() if now < at + LISTED_SECONDS},
            in_use=self._in_use,
        )

    def _serves(self, key: str, copy: OnDisk) -> bool:
        failures = self._retries.failures(key)
        return serves(copy, self._requests.get(key), failures, in_use=self._in_use(key))

    def _in_use(self, key: str) -> bool:
        """Whether a pod mounts a model, as far as is known."""
        return self._users is None or key in self._users

    # Taking away

    def _confirm(self, now: float) -> bool:
        """Look afresh at what is wanted: nothing goes on the word of an old view."""
        if now < self._confirm_at:
            return False
        try:
            self._take_node(self._api.read(), fresh=True)
            pods = self._pods.read() if self._pods is not None else ()
        except ApiUnavailableError as error:
            return self._wait_for_api(now, str(error))
        if pods is None:
            # One server may refuse for a moment what the watch is told.
            return self._wait_for_api(now, "it does not let the agent see pods")
        if self._pods is not None:
            self._pod_usage.see(pods)
            self._users = self._pod_usage.by_key(self._owners.all())
        return now >= self._confirm_at

    def _wait_for_api(self, now: float, why: str) -> bool:
        self._confirm_at = now + CONFIRM_SECONDS
        log.warning("Removal waits for the API server", reason=why)
        return False

    def _withdraw(self, now: float) -> bool:
        """Set copies aside that are not for those whom they would serve. Whether it did."""
        if self._disk.failure is not None:
            return False
        withdrawn = self._withdrawn(now) and self._confirm(now) and self._withdrawn(now)
        for manifest in withdrawn or ():
            self._removals.set_aside(manifest, now)
        return bool(withdrawn)

    def _withdrawn(self, now: float) -> list[Manifest]:
        return [
            manifest
            for key, _, manifest in self._inventory.published()
            if key in self._requests
            and key not in self._tasks
            and not self._in_use(key)
            and self._removals.retry_at.get(key, now) <= now
            and is_withdrawn(manifest, self._requests[key], self._retries.failures(key))
        ]

    def _destroy(self, plan: StepPlan, now: float) -> None:
        for key in plan.cancel:
            self._tasks[key].cancelled.set()
        doomed = (*plan.remove, *plan.discard)
        if doomed:
            self._removals.remove(doomed[0], now)
        elif plan.evict:
            eviction = plan.evict[0]
            if eviction.newcomer:
                owners = self._ledger.model(eviction.newcomer).owners
                self._patience.made(eviction.newcomer, owners)
            self._removals.evict(eviction, self._ledger, now)
        else:
            return
        self._rescan_at = max(self._rescan_at, now + SETTLE_SECONDS)

    # Telling

    def _tell_damage(self, key: str, problem: str) -> None:
        self._node_events.damaged(self._owners.granted(key), problem)

    def _report(self, now: float) -> float | None:
        node = self._node
        if node is None:
            return None
        if self._tasks:
            self._inventory.measure()
        self._owners.keep({entry.key for entry in node.spec.local_models}, set(self._tasks))
        waiting = waiting_of(self._last.waiting, pods_known=self._users is not None)
        if self._users is not None:
            self._node_events.waiting(waiting, self._owners.by_key)
        failed = {key for key in self._last.queued if self._retries.failures(key)}
        waiting |= in_queue(self._last.queued - failed, self._options.max_downloads)
        facts = make_facts(
            node,
            self._inventory,
            self._owners,
            self._retries,
            transfers={key: task.transfer(now) for key, task in self._tasks.items()},
            users=self._users or {},
            waiting=waiting,
            requests=self._requests,
            suspended=self._last.suspended,
            disk_failure=self._disk.failure,
        )
        return self._reporter.report(node, facts, now, self._options.now())
