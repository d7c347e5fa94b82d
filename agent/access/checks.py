"""Asks sources whether they give a copy that is here to those who may not have it, or not yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from agent.access.grants import Granted, is_same_copy, with_grant, without_grant
from agent.access.rechecks import Rechecks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from agent.disk.inventory import Inventory
    from agent.disk.manifest import Manifest
    from agent.news import News
    from agent.options import Options
    from agent.retries import Retries
    from agent.wanted import Request, Requester
    from agent.work import Checked, Workers

# So many at once, and one for each namespace: a slow server of one holds up no other.
MAX_CHECKS = 4

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
        news: News,
        options: Options,
    ) -> None:
        self._workers = workers
        self._inventory = inventory
        self._retries = retries
        self._news = news
        self._options = options
        self._rechecks = Rechecks(options)
        self._running: set[tuple[str, Requester]] = set()
        # When the next one is due (monotonic), if any is.
        self.next_at: float | None = None

    def begin(self, requests: Mapping[str, Request], busy: Collection[str]) -> None:
        """Start what is due. Downloads work on the `busy` keys."""
        now = self._options.monotonic()
        later: list[float] = []
        self._rechecks.keep(requests)
        for request, requester, manifest, has_it in self._open(requests, busy):
            times = self._rechecks if has_it else self._retries
            at = times.at(request.key, requester)
            if at > now:
                later.append(at)
            elif self._may_start(requester):
                self._running.add((request.key, requester))
                again = self._rechecks.what(request.key, requester) if has_it else None
                self._workers.check(request.by(requester), manifest, again)
        self.next_at = min(later, default=None)

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

    def _may_start(self, requester: Requester) -> bool:
        namespaces = {one.namespace for _, one in self._running}
        return len(self._running) < MAX_CHECKS and requester.namespace not in namespaces

    def take(self, end: Checked, requests: Mapping[str, Request], busy: Collection[str]) -> None:
        """Take in the answer, if it is still about what is asked and what is here."""
        key, requester = end.attempt.key, end.attempt.requester
        self._running.discard((key, requester))
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
            self._news.failed(key, names, end.error)
        elif had_it:
            self._rechecks.seen(key, requester, end.credentials, asked=end.origin is not None)
        elif end.origin is not None:
            self._retries.succeeded(end.attempt)
            self._rechecks.seen(key, requester, end.credentials, asked=True)
            granted = with_grant(now, end.origin, requester, request.requesters)
            self._inventory.rewrite(key, granted)
            log.info("Source gives a copy to another", key=key, namespace=requester.namespace)
            self._news.downloaded(key, names, now.size)
