"""Shared caches of the objects of a kind, updated by list and watch."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
from typing import TYPE_CHECKING

from deploy.kube.errors import ApiError, UnreachableError
from deploy.local.standin.errors import brief
from deploy.local.standin.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import Kind, KubeObject
    from deploy.local.standin.store import Change

    # Called with the old and the new object, as in a Change; a resync has the same object twice.
    Handler = Callable[[KubeObject | None, KubeObject | None], None]

LOG = logging.getLogger(__name__)

FIRST_BACKOFF = 0.2
MAX_BACKOFF = 5.0
SHORT_WATCH = 1.0
WATCH_SECONDS = 300


class Informer:
    """The cache of the objects of a kind. All handlers run in one thread, one after the other."""

    def __init__(self, api: KubeClient, resource: Kind) -> None:
        self.resource = resource
        self.store = Store()
        self._api = api
        self._synced = threading.Event()
        self._stopped = threading.Event()
        self._version = ""
        self._complaint = ""
        self._changes: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        self._handlers: dict[object, Handler] = {}
        self._handling = threading.RLock()

    @property
    def synced(self) -> bool:
        """Whether the first list has succeeded."""
        return self._synced.is_set()

    def wait_synced(self, seconds: float) -> bool:
        """Wait for the first list, for this time at most. Returns whether it has succeeded."""
        return self._synced.wait(seconds)

    def start(self) -> None:
        """Start the threads."""
        for target in (self._reflect, self._dispatch):
            name = f"{target.__name__.strip('_')} {self.resource.plural}"
            threading.Thread(target=target, name=name, daemon=True).start()

    def stop(self) -> None:
        """Stop calling handlers. The watch ends at its next event or bookmark."""
        self._stopped.set()
        self._changes.put(None)

    def subscribe(self, owner: object, handler: Handler) -> None:
        """Add a handler, and call it for each cached object, as in a resync."""
        with self._handling:
            self._handlers[owner] = handler
            for obj in self.store.all():
                handler(obj, obj)

    def unsubscribe(self, owner: object) -> None:
        """Remove the handler of an owner."""
        with self._handling:
            self._handlers.pop(owner, None)

    def _dispatch(self) -> None:
        while (change := self._changes.get()) is not None and not self._stopped.is_set():
            with self._handling:
                for handler in list(self._handlers.values()):
                    try:
                        handler(*change)
                    except Exception:
                        LOG.exception("handler of %s failed", self.resource.plural)

    def _reflect(self) -> None:
        backoff = FIRST_BACKOFF
        while not self._stopped.is_set():
            started = time.monotonic()
            self._follow()
            if time.monotonic() - started > SHORT_WATCH:
                backoff = FIRST_BACKOFF
            # Also after a watch that ended without an error: the next watch begins where it ended.
            self._stopped.wait(backoff * random.uniform(0.8, 1.2))
            backoff = min(backoff * 2, MAX_BACKOFF)

    def _follow(self) -> None:
        """List if there is no resourceVersion, then watch until the watch ends or fails."""
        try:
            if not self._version:
                self._list()
            self._watch()
        except UnreachableError as error:
            self._complain(error)
        except ApiError as error:
            # Most often the version is too old (410) or the kind is not served (404).
            self._complain(error)
            self._version = ""
        except Exception:
            LOG.exception("watch of %s", self.resource.plural)
            self._version = ""

    def _complain(self, error: Exception) -> None:
        """Log an error, unless it repeats the last one."""
        if brief(error) != self._complaint and not self._stopped.is_set():
            self._complaint = brief(error)
            LOG.info("watch of %s: %s", self.resource.plural, self._complaint)

    def _list(self) -> None:
        listed, version = self._api.snapshot(self.resource)
        for change in self.store.replace([self._typed(item) for item in listed]):
            self._changes.put(change)
        self._version = version
        self._synced.set()

    def _typed(self, obj: KubeObject) -> KubeObject:
        # Items in lists of built-in kinds have no apiVersion and kind.
        return {"apiVersion": self.resource.api_version, "kind": self.resource.name, **obj}

    def _watch(self) -> None:
        # Random, so that not all watches end at the same time.
        seconds = random.randint(WATCH_SECONDS, 2 * WATCH_SECONDS)
        for change, obj in self._api.watch(self.resource, self._version, seconds=seconds):
            if self._stopped.is_set():
                return
            if change in {"ADDED", "MODIFIED"}:
                self._changes.put(self.store.put(obj))
            elif change == "DELETED":
                self._changes.put(self.store.remove(obj))
            self._version = obj["metadata"]["resourceVersion"]
            self._complaint = ""


class Informers:
    """Informers by kind, shared by all controllers."""

    def __init__(self, api: KubeClient) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._informers: dict[tuple[str, str], tuple[Informer, int]] = {}

    def acquire(self, resource: Kind) -> Informer:
        """The running informer of a kind. Call `release` when it is not needed any more."""
        key = (resource.api_version, resource.plural)
        with self._lock:
            if key not in self._informers:
                informer = Informer(self._api, resource)
                informer.start()
                self._informers[key] = (informer, 0)
            informer, users = self._informers[key]
            self._informers[key] = (informer, users + 1)
            return informer

    def release(self, informer: Informer) -> None:
        """Stop an informer if the caller was its last user."""
        key = (informer.resource.api_version, informer.resource.plural)
        with self._lock:
            _, users = self._informers[key]
            if users > 1:
                self._informers[key] = (informer, users - 1)
            else:
                del self._informers[key]
                informer.stop()
