"""Writes to the API server in a thread, one after the other, so that nobody waits for them."""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog
import urllib3
from kubernetes.client.exceptions import ApiException

from agent.cluster.kube_watch import reason

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUE_ITEMS = 100
TRIES = 3
RETRY_SECONDS = 5.0

_FORBIDDEN = 403
_THROTTLED = 429

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Outbox(Generic[T]):
    """A bounded queue of items, and the thread that writes them with `write`.

    `write` makes one try, and raises ApiException or HTTPError. An item that cannot be written in
    TRIES tries is dropped; the log reports that once until a write succeeds. `forbidden` is the
    line of the log after a 403, which names the missing right, `failed` the line after another
    failure.
    """

    def __init__(
        self, name: str, write: Callable[[T], None], *, forbidden: str, failed: str
    ) -> None:
        self._write = write
        self._forbidden = forbidden
        self._failed = failed
        self._queue: queue.Queue[T] = queue.Queue(QUEUE_ITEMS)
        self._is_failing = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, item: T) -> None:
        """Queue an item for writing. Never raises, and never waits. Any thread may call."""
        # A full queue means a server that does not answer: the item is dropped.
        with suppress(queue.Full):
            self._queue.put_nowait(item)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            try:
                self._try_to_write(item)
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                self._drop(item, error)
            except Exception:
                log.exception("Request to the API server could not be made", item=str(item))
            else:
                self._is_failing = False

    def _try_to_write(self, item: T) -> None:
        for _ in range(TRIES - 1):
            try:
                return self._write(item)
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                if not _may_pass(error):
                    raise
            time.sleep(RETRY_SECONDS)
        return self._write(item)

    def _drop(self, item: T, error: Exception) -> None:
        """Drop this item; drop all queued items too if the server does not answer."""
        dropped = 1
        if _may_pass(error):
            with suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
                    dropped += 1
        if self._is_failing:
            return
        self._is_failing = True
        forbidden = isinstance(error, ApiException) and error.status == _FORBIDDEN
        log.warning(
            self._forbidden if forbidden else self._failed,
            reason=reason(error),
            dropped=dropped,
            firstDropped=str(item),
        )


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed soon: no response, a server error, or throttling.

    A server that has just started answers 403 to all requests until it has loaded the roles.
    """
    if not isinstance(error, ApiException):
        return True
    return not error.status or error.status >= 500 or error.status in {_FORBIDDEN, _THROTTLED}
