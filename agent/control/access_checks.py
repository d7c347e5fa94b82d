"""Asks sources whether requesters may have a copy that is on the disk, or may still have it."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from agent.jobs.rechecks import Rechecks
from agent.structs.grants import Granted, is_same_copy, with_grant, without_grant
from agent.structs.log import log

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.control.model_retries import Retries
    from agent.control.node_events import NodeEvents
    from agent.control.rows import Row, Table
    from agent.disk.inventory import Inventory
    from agent.jobs.workers import AccessResult, Workers
    from agent.structs.manifest import Manifest
    from agent.structs.options import Options
    from agent.structs.requests import Request, Requester

# So many checks run at once for namespaces, one for each, and one for LocalModelCaches beside them:
# a slow server of one namespace holds up no other. Where more namespaces ask, the one whose last
# check is longest ago is first.
MAX_CHECKS = 8


class Checks:
    """The checks that are under way, and what comes of them.

    A grant is noted in the copy's manifest, so that after a restart no source need be asked first.
    Sources are asked again about namespaces from time to time, and a namespace loses a copy that
    its source or a keeper of credentials refuses.
    """

    def __init__(
        self,
        workers: Workers,
        inventory: Inventory,
        retries: Retries,
        node_events: NodeEvents,
        options: Options,
    ) -> None:
        self._workers = workers
        self._inventory = inventory
        self._retries = retries
        self._node_events = node_events
        self._options = options
        self._rechecks = Rechecks(options)
        # What ends each check that is under way. `_may_start` bounds them.
        self._running: dict[tuple[str, Requester], threading.Event] = {}
        # When each namespace that waits had its last check: a number that grows.
        self._served: dict[str, int] = {}
        self._number = 0
        # When the next check is due (monotonic), if any is.
        self.next_at: float | None = None

    @property
    def running(self) -> int:
        """How many checks are under way."""
        return len(self._running)

    def retain(self, requests: Mapping[str, Request]) -> None:
        """End all checks for other requesters, and forget when they are due."""
        for (key, requester), ended in self._running.items():
            if key not in requests or requester not in requests[key].requesters:
                ended.set()
        self._rechecks.retain(requests)

    def begin(self, table: Table) -> None:
        """Start the checks that are due."""
        later: list[float] = []
        # Of each namespace, the check that has been due for the longest time.
        due: dict[str, tuple[Request, Requester, Manifest, bool]] = {}
        since: dict[str, float] = {}
        for row in table.rows.values():
            for requester, has_it in row.asking:
                if (row.key, requester) in self._running:
                    continue
                at = self._at(row, requester, has_it=has_it)
                if at > table.now:
                    later.append(at)
                elif row.request is not None and row.manifest is not None:
                    name = requester.namespace
                    if at < since.get(name, math.inf):
                        since[name] = at
                        due[name] = (row.request, requester, row.manifest, has_it)
        self._served = {name: at for name, at in self._served.items() if name in due}
        for name in sorted(due, key=lambda name: self._served.get(name, 0)):
            if self._may_start(name):
                self._start(*due[name])
        self.next_at = min(later, default=None)

    def _start(
        self, request: Request, requester: Requester, manifest: Manifest, has_it: bool
    ) -> None:
        again = self._rechecks.what(request.key, requester) if has_it else None
        ended = threading.Event()
        self._number += 1
        self._served[requester.namespace] = self._number
        self._running[request.key, requester] = ended
        self._workers.check(request.by(requester), manifest, ended, again)

    def _at(self, row: Row, requester: Requester, *, has_it: bool) -> float:
        if has_it:
            return self._rechecks.at(row.key, requester)
        retry = row.retries.get(requester)
        return retry.at if retry else 0.0

    def _may_start(self, namespace: str) -> bool:
        running = {one.namespace for _, one in self._running}
        return namespace not in running and (not namespace or len(running - {""}) < MAX_CHECKS)

    def observe(self, end: AccessResult, request: Request | None, *, is_busy: bool) -> None:
        """Take in the answer, if it is still about what is requested and what is on the disk.

        `request` is what is requested of the key now; a download works on a busy key.
        """
        key, requester = end.attempt.key, end.attempt.requester
        if self._running.pop((key, requester)).is_set():
            return
        now = self._inventory.copy(key).manifest
        if request is None or not request.asks_as(end.attempt):
            return
        if is_busy or now is None or not is_same_copy(now, end.manifest):
            return
        names = request.caches_of(requester)
        had_it = requester in Granted(now.access)
        if end.error is not None and had_it and not end.error.refuses:
            # Nobody loses a copy because its source is away, or has another one now.
            self._rechecks.put_off(key, requester)
        elif end.error is not None:
            if had_it:
                self._inventory.rewrite(key, without_grant(now, requester, request.requesters))
                log.warning("Copy was taken back", key=key, namespace=requester.namespace)
            self._retries.failed(end.attempt, end.attempt, end.error, "Check of access failed")
            self._node_events.failed(key, names, end.error)
        elif had_it:
            self._rechecks.seen(key, requester, end.credentials, asked=end.origin is not None)
        elif end.origin is not None:
            self._retries.succeeded(end.attempt)
            self._rechecks.seen(key, requester, end.credentials, asked=True)
            granted = with_grant(now, end.origin, requester, request.requesters)
            self._inventory.rewrite(key, granted)
            log.info("Source gives a copy to another", key=key, namespace=requester.namespace)
            self._node_events.downloaded(key, names, now.size)
