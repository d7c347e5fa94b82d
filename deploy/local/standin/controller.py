"""The common part of CompositeController and DecoratorController."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from deploy.kube import meta
from deploy.kube.errors import ApiError
from deploy.local.standin import objects
from deploy.local.standin.children import desired_map
from deploy.local.standin.customize import Customizer
from deploy.local.standin.errors import (
    RelatedNotSyncedError,
    SyncError,
    TooManyRequestsError,
    brief,
)
from deploy.local.standin.labels import selects
from deploy.local.standin.spec import as_sent
from deploy.local.standin.webhook import HookClient
from deploy.local.standin.workqueue import WorkQueue

if TYPE_CHECKING:
    from deploy.kube.kinds import Kind, KubeObject
    from deploy.local.standin.answers import Answer
    from deploy.local.standin.discovery import Discovery
    from deploy.local.standin.endpoints import Endpoints
    from deploy.local.standin.informer import Informer, Informers
    from deploy.local.standin.objects import ObjectMap
    from deploy.local.standin.reconcile import ChildReconciler, Methods
    from deploy.local.standin.spec import (
        ChildRule,
        CompositeSpec,
        DecoratorSpec,
        Hook,
        ParentRule,
    )
    from deploy.local.standin.writes import Writer

LOG = logging.getLogger(__name__)

# Metacontroller relists after 30 minutes, which resyncs the parents.
MAX_RESYNC_SECONDS = 1800
STOP_SECONDS = 5.0
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Shared:
    """Objects that all controllers of the process share."""

    writer: Writer
    discovery: Discovery
    endpoints: Endpoints
    informers: Informers
    reconciler: ChildReconciler
    workers: int


class Key(NamedTuple):
    """The key of a parent in the queue."""

    resource: Kind
    namespace: str
    name: str


class Controller(ABC):
    """Runs one controller object: watches its kinds and syncs its parents."""

    # Names of fields in hook requests, and the prefix of the finalizer.
    finalizer_prefix: ClassVar[str]
    parent_field: ClassVar[str]
    children_field: ClassVar[str]
    answer: ClassVar[type[Answer]]

    def __init__(
        self,
        controller: KubeObject,
        shared: Shared,
        *,
        parent_rules: list[ParentRule],
        child_rules: list[ChildRule],
        spec: CompositeSpec | DecoratorSpec,
    ) -> None:
        """Look up the kinds, read the Secrets of hooks, and acquire the kinds' informers.

        Raises SyncError and ApiError.
        """
        hooks, resync_seconds = spec.hooks, spec.resync_period_seconds
        self.name = meta.name(controller)
        self.shared = shared
        self.finalizer = f"metacontroller.io/{self.finalizer_prefix}-{self.name}"
        self.queue: WorkQueue[Key] = WorkQueue()
        self.stopped = threading.Event()
        discovery = shared.discovery
        self.parent_rules = {
            discovery.resource(rule.api_version, rule.resource): rule for rule in parent_rules
        }
        self.child_rules = child_rules
        child_resources = [
            discovery.resource(rule.api_version, rule.resource) for rule in child_rules
        ]
        self.methods: Methods = {
            (objects.api_group(resource.api_version), resource.name): rule.update_strategy.method
            for resource, rule in zip(child_resources, child_rules, strict=True)
        }
        self._controller = as_sent(controller)
        authorizations = shared.endpoints.authorizations(spec.endpoint_configs)

        def client(hook: Hook | None, name: str) -> HookClient | None:
            return HookClient(hook, name, authorizations) if hook else None

        self._sync_hook = HookClient(hooks.sync, "sync", authorizations)
        self._finalize_hook = client(hooks.finalize, "finalize")
        self._resync_seconds = min(max(resync_seconds or MAX_RESYNC_SECONDS, 1), MAX_RESYNC_SECONDS)
        # Nothing may fail below: the informers would never be released.
        self.parents: dict[Kind, Informer] = {
            resource: shared.informers.acquire(resource) for resource in self.parent_rules
        }
        self.children: dict[tuple[str, str], Informer] = {
            (resource.api_version, resource.plural): shared.informers.acquire(resource)
            for resource in dict.fromkeys(child_resources)
        }
        self.customizer = Customizer(
            self._controller,
            client(hooks.customize, "customize"),
            discovery,
            shared.informers,
            parents=self._all_parents,
            enqueue=self.enqueue,
        )
        self._workers: list[threading.Thread] = []

    def start(self) -> None:
        """Subscribe to the informers, and sync when these have synced."""
        # A kind may be both a parent and a child.
        for informer in self.parents.values():
            informer.subscribe(("parents", self), self._on_parent)
        for informer in self.children.values():
            informer.subscribe(("children", self), self._on_child)
        for number in range(self.shared.workers):
            name = f"{self.name} {number}"
            self._workers.append(threading.Thread(target=self._work, name=name, daemon=True))
        resync = threading.Thread(target=self._resync, name=f"{self.name} resync", daemon=True)
        for thread in (*self._workers, resync):
            thread.start()

    def stop(self) -> None:
        """Wait for the workers' syncs, and release the informers."""
        self.stopped.set()
        self.queue.shut_down()
        deadline = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        self.customizer.stop()
        for role, informers in (("parents", self.parents), ("children", self.children)):
            for informer in informers.values():
                informer.unsubscribe((role, self))
                self.shared.informers.release(informer)

    def enqueue(self, parent: KubeObject) -> None:
        """Queue a parent if this controller manages it."""
        if self.manages(parent):
            self.queue.add(self._key(parent))

    def manages(self, parent: KubeObject) -> bool:
        """Whether the selector matches a parent, or matched when the finalizer was set."""
        return self.matches(parent) or self.finalizer in meta.finalizers(parent)

    def matches(self, parent: KubeObject) -> bool:
        """Whether the selector for this kind of parents matches."""
        rule = self.parent_rules[self.parent_resource(parent)]
        return selects(rule.label_selector, meta.labels(parent))

    def parent_resource(self, parent: KubeObject) -> Kind:
        """The resource of a parent."""
        group = objects.api_group(parent["apiVersion"])
        found = self._parent_kind(group, parent["kind"])
        if found is None:
            raise SyncError(f"unknown parent {objects.describe(parent)}")
        return found

    def should_finalize(self, parent: KubeObject) -> bool:
        """Whether the children of a parent that is being deleted are still managed."""
        names = meta.finalizers(parent)
        return (
            self._finalize_hook is not None
            and self.finalizer in names
            and not set(names) & set(objects.GC_FINALIZERS)
        )

    def manage_children(self, parent: KubeObject, observed: ObjectMap, desired: ObjectMap) -> None:
        """Reconcile the children of a parent, unless it is being deleted and not finalized."""
        if meta.is_deleting(parent) and not self.should_finalize(parent):
            return
        self.shared.reconciler.manage(parent, observed, desired, self.methods)

    def child_informers(self) -> list[tuple[Kind, Informer]]:
        """The child kinds and their informers. Raises NotServedError if a kind is not served."""
        found = []
        for rule in self.child_rules:
            resource = self.shared.discovery.resource(rule.api_version, rule.resource)
            found.append((resource, self.children[rule.api_version, rule.resource]))
        return found

    @abstractmethod
    def observe(self, parent: KubeObject) -> ObjectMap:
        """The children of a parent, with an entry for each child kind, which may be empty."""

    @abstractmethod
    def conclude(
        self, parent: KubeObject, observed: ObjectMap, desired: ObjectMap, answer: Answer
    ) -> None:
        """Write the changes that the hook's answer asks for."""

    @abstractmethod
    def on_orphan(self, child: KubeObject) -> None:
        """Handle a new or changed object of a child kind that no controller owns."""

    def _sync(self, key: Key) -> None:
        parent = self.parents[key.resource].store.get(key.namespace, key.name)
        if parent is None or not self.manages(parent):
            return
        parent = self._sync_finalizer(key.resource, parent)
        if not self.manages(parent):
            return
        observed = self.observe(parent)
        related = self.customizer.related(parent)
        answer = self._call(parent, observed, related)
        if self.stopped.is_set():
            return
        if answer.resync_after_seconds and answer.resync_after_seconds > 0:
            self.queue.add_after(key, answer.resync_after_seconds)
        desired = desired_map(parent, answer.desired)
        self.conclude(parent, observed, desired, answer)

    def _sync_finalizer(self, resource: Kind, parent: KubeObject) -> KubeObject:
        present = self.finalizer in meta.finalizers(parent)
        if self._finalize_hook is None and present:
            return self.shared.writer.remove_finalizer(resource, parent, self.finalizer)
        if self._finalize_hook is not None and not present and not meta.is_deleting(parent):
            return self.shared.writer.add_finalizer(resource, parent, self.finalizer)
        return parent

    def _call(self, parent: KubeObject, observed: ObjectMap, related: ObjectMap) -> Answer:
        finalizing = meta.is_deleting(parent) or not self.matches(parent)
        hook = self._finalize_hook if finalizing and self._finalize_hook else self._sync_hook
        request = {
            "controller": self._controller,
            self.parent_field: parent,
            self.children_field: observed,
            "related": related,
            "finalizing": hook is self._finalize_hook,
        }
        return hook.call(request, self.answer)

    def _work(self) -> None:
        for informer in (*self.parents.values(), *self.children.values()):
            while not informer.wait_synced(POLL_SECONDS):
                if self.stopped.is_set():
                    return
        while (key := self.queue.get()) is not None:
            try:
                self._try(key)
            finally:
                self.queue.done(key)

    def _try(self, key: Key) -> None:
        what = f"{self.name}: {key.resource.name} {key.namespace}/{key.name}".replace(" /", " ")
        try:
            self._sync(key)
        except TooManyRequestsError as error:
            LOG.info("%s: %s", what, error)
            self.queue.add_after(key, error.seconds)
        except RelatedNotSyncedError:
            self.queue.add_rate_limited(key)
        except (SyncError, ApiError) as error:
            LOG.warning("failed to sync %s: %s", what, brief(error))
            self.queue.add_rate_limited(key)
        except Exception:
            LOG.exception("failed to sync %s", what)
            self.queue.add_rate_limited(key)
        else:
            self.queue.forget(key)

    def _resync(self) -> None:
        while not self.stopped.wait(self._resync_seconds):
            for parent in self._all_parents():
                self._on_parent(parent, parent)

    def _all_parents(self) -> list[KubeObject]:
        return [obj for informer in self.parents.values() for obj in informer.store.all()]

    def _key(self, parent: KubeObject) -> Key:
        resource = self.parent_resource(parent)
        return Key(resource, meta.namespace(parent), meta.name(parent))

    def _parent_kind(self, group: str, kind: str) -> Kind | None:
        for resource in self.parents:
            if objects.api_group(resource.api_version) == group and resource.name == kind:
                return resource
        return None

    def _on_parent(self, old: KubeObject | None, new: KubeObject | None) -> None:
        parent = new or old
        if parent is None:
            return
        if old and new and old is not new:
            rule = self.parent_rules[self.parent_resource(parent)]
            if rule.ignore_status_changes and only_status_changed(old, new):
                return
        self.enqueue(parent)

    def _on_child(self, old: KubeObject | None, new: KubeObject | None) -> None:
        child = new or old
        if child is None:
            return
        if old and new and meta.resource_version(old) == meta.resource_version(new):
            return
        reference = meta.controller_of(child)
        if reference is None:
            if new and not meta.is_deleting(new):
                self.on_orphan(new)
            return
        group = objects.api_group(reference["apiVersion"])
        resource = self._parent_kind(group, reference["kind"])
        if resource is None:
            return
        namespace = meta.namespace(child) if resource.namespaced else ""
        parent = self.parents[resource].store.get(namespace, reference["name"])
        if parent is not None and meta.uid(parent) == reference["uid"]:
            self.enqueue(parent)


def only_status_changed(old: KubeObject, new: KubeObject) -> bool:
    """Whether generation, labels and annotations are equal, and no deletion was requested."""
    return (
        meta.generation(old) == meta.generation(new)
        and meta.labels(old) == meta.labels(new)
        and meta.annotations_of(old) == meta.annotations_of(new)
        and not meta.is_deleting(new)
    )
