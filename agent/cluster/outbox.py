"""Writes to the API server in a thread, one after the other, so that nobody waits for them."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import urllib3
from kubernetes.client.exceptions import ApiException

from agent.cluster.kube_watch import reason
from agent.structs.log import log

if TYPE_CHECKING:
    from collections.abc import Callable

# More than a node has pods: a model that is published can concern all of them at the same time.
QUEUE_ITEMS = 1000
TRIES = 3
RETRY_SECONDS = 5.0

_FORBIDDEN = 403
_THROTTLED = 429
_MESSAGE_LENGTH = 500

T = TypeVar("T")


@dataclass(frozen=True)
class _Refused(Generic[T]):
    """An item that the API server has not taken in some tries. again_at: monotonic seconds."""

    item: T
    tries: int
    again_at: float


class Outbox(Generic[T]):
    """A bounded queue of items, and the thread that writes them with `write`.

    `write` makes one try, and raises ApiException or HTTPError. An item that cannot be written in
    TRIES tries is dropped; the log reports that once until a write succeeds. A refusal or a timeout
    concerns its item only, whose next try comes after RETRY_SECONDS; the other items are written
    meanwhile. If the API server cannot be reached, the queue waits, and is dropped after the last
    try.

    `name` names the queue and its thread. `forbidden` is the line of the log after a 403 that names
    a missing right, `failed` the line after another failure.
    """

    def __init__(
        self, name: str, write: Callable[[T], None], *, forbidden: str, failed: str
    ) -> None:
        self._name = name
        self._write = write
        self._forbidden = forbidden
        self._failed = failed
        self._queue: queue.Queue[T] = queue.Queue(QUEUE_ITEMS)
        # In the order of their next tries. Bounded by QUEUE_ITEMS.
        self._refused: deque[_Refused[T]] = deque()
        self._is_failing = False
        self._has_overflowed = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def put(self, item: T) -> None:
        """Queue an item for writing. Never raises, and never waits. Any thread may call."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            if not self._has_overflowed:
                self._has_overflowed = True
                log.warning(
                    "The queue of writes to the API server is full; new items are dropped until "
                    "the API server responds",
                    queue=self._name,
                    items=QUEUE_ITEMS,
                    firstDropped=str(item),
                )

    def _run(self) -> None:
        while True:
            item, tries = self._next()
            try:
                self._try_to_write(item)
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                if not _concerns_item(error):
                    self._drop(item, error, *self._drain())
                elif _may_pass(error) and tries + 1 < TRIES and len(self._refused) < QUEUE_ITEMS:
                    again_at = time.monotonic() + RETRY_SECONDS
                    self._refused.append(_Refused(item, tries + 1, again_at))
                else:
                    self._drop(item, error)
            except Exception:
                log.exception("Request to the API server could not be made", item=str(item))
            else:
                self._is_failing = self._has_overflowed = False

    def _next(self) -> tuple[T, int]:
        """The next item to write, and in how many tries it was refused."""
        first = self._refused[0] if self._refused else None
        # Waits for a new item, and no longer than until a refused item is due.
        wait = max(first.again_at - time.monotonic(), 0) if first else None
        if first is None or wait:
            with suppress(queue.Empty):
                return self._queue.get(timeout=wait), 0
        refused = self._refused.popleft()
        return refused.item, refused.tries

    def _try_to_write(self, item: T) -> None:
        """Write an item. Tries again, before all others, if the API server cannot be reached."""
        for _ in range(TRIES - 1):
            try:
                return self._write(item)
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                if _concerns_item(error):
                    raise
            time.sleep(RETRY_SECONDS)
        return self._write(item)

    def _drain(self) -> list[T]:
        """Empty the queue. Returns what was in it."""
        drained = [refused.item for refused in self._refused]
        self._refused.clear()
        with suppress(queue.Empty):
            while True:
                drained.append(self._queue.get_nowait())
        return drained

    def _drop(self, item: T, error: Exception, *behind: T) -> None:
        """Report that an item was dropped, with those `behind` it in the queue."""
        if self._is_failing:
            return
        self._is_failing = True
        message = _message_of(error)
        log.warning(
            self._forbidden if _names_missing_right(error, message) else self._failed,
            reason=reason(error),
            dropped=1 + len(behind),
            firstDropped=str(item),
            **({"message": message} if message else {}),
        )


def _concerns_item(error: Exception) -> bool:
    """Whether another item may be written: the API server refused this one, or took too long.

    The API server waits for the webhooks of the namespace.
    """
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return True
    return isinstance(error, ApiException) and bool(error.status)


def _may_pass(error: Exception) -> bool:
    """Whether a request that the API server did not carry out may succeed soon.

    A server that has just started answers 403 to all requests until it has loaded the roles.
    """
    if not isinstance(error, ApiException):
        return True
    status = error.status or 0
    return status >= 500 or status in {_FORBIDDEN, _THROTTLED}


def _message_of(error: Exception) -> str:
    """The message of the API server's Status; empty if the response is something else."""
    try:
        status = json.loads(getattr(error, "body", None) or "")
    except ValueError:
        return ""
    if not isinstance(status, dict) or status.get("kind") != "Status":
        return ""
    return str(status.get("message") or "")[:_MESSAGE_LENGTH]


def _names_missing_right(error: Exception, message: str) -> bool:
    """Whether a 403 is of RBAC: a webhook, a policy and a quota refuse by 403 as well."""
    is_forbidden = isinstance(error, ApiException) and error.status == _FORBIDDEN
    return is_forbidden and (not message or " cannot " in message)
