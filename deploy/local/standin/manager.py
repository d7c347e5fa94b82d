"""Starts, restarts and stops controllers when their objects are created, changed or deleted."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from deploy.kube import meta
from deploy.kube.errors import ApiError
from deploy.kube.kinds import COMPOSITES, DECORATORS, Kind
from deploy.local.standin.children import ApplyCache
from deploy.local.standin.composite import CompositeController
from deploy.local.standin.controller import Controller, Shared
from deploy.local.standin.decorator import DecoratorController
from deploy.local.standin.discovery import Discovery
from deploy.local.standin.endpoints import Endpoints
from deploy.local.standin.errors import RefusedError, SyncError, brief
from deploy.local.standin.informer import Informers
from deploy.local.standin.reconcile import ChildReconciler
from deploy.local.standin.workqueue import WorkQueue
from deploy.local.standin.writes import Writer

if TYPE_CHECKING:
    from deploy.kube.client import KubeClient
    from deploy.kube.kinds import KubeObject
    from deploy.local.standin.informer import Informer

LOG = logging.getLogger(__name__)

KINDS: dict[str, tuple[Kind, type[CompositeController | DecoratorController]]] = {
    COMPOSITES.name: (COMPOSITES, CompositeController),
    DECORATORS.name: (DECORATORS, DecoratorController),
}

# Kind and name of a controller object.
Key = tuple[str, str]


class Manager:
    """Runs a controller for each CompositeController and DecoratorController."""

    def __init__(self, api: KubeClient, *, workers: int, discovery_interval: float) -> None:
        self._interval = discovery_interval
        self._discovery = Discovery(api, discovery_interval)
        self._informers = Informers(api)
        writer = Writer(api)
        reconciler = ChildReconciler(writer, self._discovery, ApplyCache())
        self._shared = Shared(
            writer, self._discovery, Endpoints(api), self._informers, reconciler, workers
        )
        self._queue: WorkQueue[Key] = WorkQueue()
        self._sources: dict[str, Informer] = {}
        self._running: dict[Key, Controller] = {}
        # The last spec of each controller that was started or refused.
        self._specs: dict[Key, object] = {}
        self._waiting: dict[Key, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Run controllers until `stop` is set."""
        threading.Thread(target=self._discovery.run, args=(stop,), daemon=True).start()
        for kind, (resource, _) in KINDS.items():
            self._sources[kind] = self._informers.acquire(resource)
        for informer in self._sources.values():
            informer.subscribe(self, self._changed)
        threading.Thread(target=self._work, name="manager", daemon=True).start()
        stop.wait()
        self._queue.shut_down()
        for controller in list(self._running.values()):
            # Without a wait for the workers: an interrupted sync is repeated after the next start.
            controller.stopped.set()
            controller.queue.shut_down()

    def _changed(self, old: KubeObject | None, new: KubeObject | None) -> None:
        controller = new or old
        if controller is not None:
            self._queue.add((controller["kind"], meta.name(controller)))

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            try:
                self._reconcile(key)
            except Exception:
                LOG.exception("%s %s", *key)
                self._queue.add_after(key, self._interval)
            finally:
                self._queue.done(key)

    def _reconcile(self, key: Key) -> None:
        kind, name = key
        controller = self._sources[kind].store.get("", name)
        spec = (controller or {}).get("spec")
        if controller is not None and key in self._specs and self._specs[key] == spec:
            return
        self._specs.pop(key, None)
        if key in self._running:
            LOG.info("stopping %s %s", kind, name)
            self._running.pop(key).stop()
        if controller is None:
            self._waiting.pop(key, None)
            return
        try:
            started = KINDS[kind][1](controller, self._shared)
        except RefusedError as error:
            LOG.warning("%s", error)
            self._specs[key] = spec
        except (SyncError, ApiError) as error:
            if self._waiting.get(key) != str(error):
                LOG.warning("%s %s waits: %s", kind, name, brief(error))
                self._waiting[key] = str(error)
            self._queue.add_after(key, self._interval)
        else:
            LOG.info("starting %s %s", kind, name)
            self._waiting.pop(key, None)
            self._specs[key] = spec
            self._running[key] = started
            started.start()
