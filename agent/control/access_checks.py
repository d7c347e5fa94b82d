"""Asks sources whether they give a copy that is here to those who may not have it, or not yet."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from agent.jobs.rechecks import Rechecks
from agent.structs.grants import Granted, is_same_copy, with_grant, without_grant

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from agent.control.node_events import NodeEvents
    from agent.control.retries import Retries
    from agent.disk.inventory import Inventory
    from agent.jobs.workers import AccessResult, Workers
    from agent.structs.manifest import Manifest
    from agent.structs.options import Options
    from agent.structs.requests import Request, Requester

# So many at once of namespaces, each of which has one, and one of LocalModelCaches beside them: a
# slow server of one holds up no other. Where more ask, who had its last one longest ago is first.
MAX_CHECKS = 8

log = structlog.get_logger(__name__)


class Checks:
    """The checks that are under way, and what comes of them.

    What was granted is noted in the copy's manifest, so that after a restart nobody need be asked
    first. Namespaces are asked about again from time to time, and lose what their source or a
    keeper of credentials refuses.
    """

    def __init__(
        self,
        workers: Workers,
        inventory: Inventory,
        retries: Retries,
        news: NodeEvents,
        options: Options,
    ) -> None:
        self._workers = workers
        self._inventory = inventory
        self._retries = retries
        self._node_events = news
        self._options = options
        self._rechecks = Rechecks(options)
        # Those under way, and what ends each: at most MAX_CHECKS and one.
        self._running: dict[tuple[str, Requester], threading.Event] = {}
        # When each namespace had its last one: a number that grows. Of those that wait for one.
        self._served: dict[str, int] = {}
        self._number = 0
        # When the next one is due (monotonic), if any is.
        self.next_at: float | None = None

    def begin(self, requests: Mapping[str, Request], busy: Collection[str]) -> None:
        """Start what is due. Downloads work on the `busy` keys."""
        now = self._options.monotonic()
        for (key, requester), ended in self._running.items():
            if key not in requests or requester not in requests[key].requesters:
                ended.set()
        later: list[float] = []
        self._rechecks.keep(requests)
        due: dict[str, tuple[Request, Requester, Manifest, bool]] = {}
        for request, requester, manifest, has_it in self._open(requests, busy):
            times = self._rechecks if has_it else self._retries
            at = times.at(request.key, requester)
            if at > now:
                later.append(at)
            else:
                due.setdefault(requester.namespace, (request, requester, manifest, has_it))
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

    def _open(
        self, requests: Mapping[str, Request], busy: Collection[str]
    ) -> Iterator[tuple[Request, Requester, Manifest, bool]]:
        for key, _, manifest in self._inventory.published():
            if key in busy or key not in requests:
                continue
            granted = Granted(manifest.access)
            for requester in requests[key].requesters:
                # No LocalModelCache is served from what a namespace fetched while it waits, and
                # none loses what it has.
                has_it = requester in granted
                is_open = (
                    requester not in requests[key].suspended or has_it
                    if requester.namespace
                    else not has_it
                )
                if is_open and (key, requester) not in self._running:
                    yield requests[key], requester, manifest, has_it

    def _may_start(self, namespace: str) -> bool:
        running = {one.namespace for _, one in self._running}
        return namespace not in running and (not namespace or len(running - {""}) < MAX_CHECKS)

    def take(
        self, end: AccessResult, requests: Mapping[str, Request], busy: Collection[str]
    ) -> None:
        """Take in the answer, if it is still about what is asked and what is here."""
        key, requester = end.attempt.key, end.attempt.requester
        if self._running.pop((key, requester)).is_set():
            return
        request, now = requests.get(key), self._inventory.copy(key).manifest
        if request is None or not request.asks_as(end.attempt):
            return
        if key in busy or now is None or not is_same_copy(now, end.manifest):
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
