"""What becomes of a download that has ended: a new copy, or a failure; and its Event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.control.node_events import display_names
from agent.disk.on_disk import Found
from agent.structs.failures import scheme
from agent.structs.log import log

if TYPE_CHECKING:
    from agent.control.model_retries import Retries
    from agent.control.node_events import NodeEvents
    from agent.disk.inventory import Inventory
    from agent.jobs.workers import Finished
    from agent.structs.failures import DownloadError
    from agent.structs.options import Options
    from agent.structs.requests import Request


class Outcomes:
    """Takes in ends of downloads, and reports them as Events."""

    def __init__(
        self,
        inventory: Inventory,
        retries: Retries,
        node_events: NodeEvents,
        options: Options,
    ) -> None:
        self._inventory = inventory
        self._retries = retries
        self._node_events = node_events
        self._options = options
        self._counts = options.counts

    def observe(self, end: Finished, request: Request | None, spent: float) -> None:
        """Take in an end. `request` is what is requested of the key now, None for nothing.

        `spent` are the seconds that all attempts took since the last success.
        """
        key = end.request.key
        if end.cancelled:
            self._counts.cancelled(scheme(end.request.uri))
            log.info("Cancelled a download", key=key)
        elif end.no_room:
            self._counts.cancelled(scheme(end.request.uri))
            log.info("Model is larger than was reserved for it, and does not fit", key=key)
        elif end.error is not None:
            self._counts.failed(scheme(end.request.uri), end.error.kind)
            self._fail(end.request, end.error, request)
        else:
            self._succeed(end, spent)

    def _succeed(self, end: Finished, spent: float) -> None:
        key, now = end.request.key, self._options.now()
        self._retries.succeeded(end.request)
        names = end.request.caches_of(end.request.requester)
        if end.adopted is not None:
            self._inventory.adopted_now(key, now, end.adopted)
            self._counts.adopted()
            log.info(
                "Adopted a model that was there",
                key=key,
                caches=display_names(names),
                bytes=end.adopted.found,
                added=end.adopted.added,
            )
            self._node_events.adopted(key, names, end.adopted)
            return
        former = self._inventory.copy(key)
        # A repair fetches the bad files alone.
        is_whole = former.found is not Found.DAMAGED and not former.lacks_view
        if former.lacks_view:
            # Nothing but its view was missing: the copy is as old as before.
            copy = self._inventory.look_at(key)
            log.info("Made the view of a model", key=key)
        else:
            copy = self._inventory.published_now(key, now, round(spent) if is_whole else None)
            self._counts.published(scheme(end.request.uri))
            log.info("Published a model", key=key)
        size = copy.manifest.size if copy.manifest else 0
        if is_whole:
            self._counts.downloaded(size, spent)
        self._node_events.downloaded(key, names, size, spent if is_whole else None)

    def _fail(self, attempt: Request, error: DownloadError, request: Request | None) -> None:
        # Another hash or other credentials are another try.
        if request is not None and request.asks_as(attempt):
            self._retries.failed(request, attempt, error)
            self._node_events.failed(attempt.key, request.caches_of(attempt.requester), error)
