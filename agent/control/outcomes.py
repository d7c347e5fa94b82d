"""What becomes of downloads that have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from agent.control.node_events import display_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.control.node_events import NodeEvents
    from agent.control.retries import Retries
    from agent.disk.inventory import Inventory
    from agent.jobs.workers import Finished
    from agent.structs.failures import DownloadError
    from agent.structs.options import Options
    from agent.structs.requests import Request

log = structlog.get_logger(__name__)


class Outcomes:
    """Takes them in, and tells them."""

    def __init__(
        self,
        inventory: Inventory,
        retries: Retries,
        news: NodeEvents,
        options: Options,
    ) -> None:
        self._inventory = inventory
        self._retries = retries
        self._node_events = news
        self._options = options

    def take(self, end: Finished, requests: Mapping[str, Request]) -> None:
        """Take in an end. `requests` is what is asked for now."""
        key = end.request.key
        if end.cancelled:
            log.info("Cancelled a download", key=key)
        elif end.no_room:
            log.info("Model is larger than was reserved for it, and does not fit", key=key)
        elif end.error is not None:
            self._fail(end.request, end.error, requests)
        else:
            self._succeed(end)

    def _succeed(self, end: Finished) -> None:
        key, now = end.request.key, self._options.now()
        self._retries.succeeded(end.request)
        names = end.request.caches_of(end.request.requester)
        if end.adopted is not None:
            self._inventory.adopted_now(key, now, end.adopted)
            log.info(
                "Adopted a model that was there",
                key=key,
                caches=display_names(names),
                bytes=end.adopted.found,
                added=end.adopted.added,
            )
            self._node_events.adopted(key, names, end.adopted)
            return
        copy = self._inventory.published_now(key, now)
        log.info("Published a model", key=key)
        size = copy.manifest.size if copy.manifest else 0
        self._node_events.downloaded(key, names, size)

    def _fail(
        self, request: Request, error: DownloadError, requests: Mapping[str, Request]
    ) -> None:
        asked = requests.get(request.key)
        # Another hash or other credentials are another try.
        if asked is not None and asked.asks_as(request):
            self._retries.failed(asked, request, error)
            self._node_events.failed(request.key, asked.caches_of(request.requester), error)
