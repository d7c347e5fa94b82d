"""Related objects: calls the customize hook, collects the objects, and watches them."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from deploy.kube import meta
from deploy.local.standin import objects
from deploy.local.standin.errors import RelatedNotSyncedError, SyncError
from deploy.local.standin.objects import group_key
from deploy.local.standin.rules import CustomizeAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deploy.kube.kinds import Kind, KubeObject
    from deploy.local.standin.discovery import Discovery
    from deploy.local.standin.informer import Informer, Informers
    from deploy.local.standin.objects import ObjectMap
    from deploy.local.standin.rules import RelatedRule
    from deploy.local.standin.webhook import HookClient

LOG = logging.getLogger(__name__)

ANSWER_SECONDS = 20 * 60.0


class AnswerCache:
    """Rules from customize hooks by the parent's uid and generation, for 20 minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: dict[tuple[str, int], tuple[float, list[RelatedRule]]] = {}

    def get(self, parent: KubeObject) -> list[RelatedRule] | None:
        """The rules of a parent; None if they are not cached."""
        with self._lock:
            expires, rules = self._answers.get(_cache_key(parent), (0.0, []))
        return rules if self._clock() < expires else None

    def set(self, parent: KubeObject, rules: list[RelatedRule]) -> None:
        """Cache the rules of a parent, and drop expired rules."""
        now = self._clock()
        with self._lock:
            for key in [key for key, (expires, _) in self._answers.items() if expires <= now]:
                del self._answers[key]
            self._answers[_cache_key(parent)] = (now + ANSWER_SECONDS, rules)


def _cache_key(parent: KubeObject) -> tuple[str, int]:
    return meta.uid(parent), meta.generation(parent)


class Customizer:
    """The related objects of one controller's parents."""

    def __init__(
        self,
        controller: KubeObject,
        hook: HookClient | None,
        discovery: Discovery,
        informers: Informers,
        *,
        parents: Callable[[], list[KubeObject]],
        enqueue: Callable[[KubeObject], None],
    ) -> None:
        self._controller = controller
        self._hook = hook
        self._discovery = discovery
        self._informers = informers
        self._parents = parents
        self._enqueue = enqueue
        self._answers = AnswerCache()
        self._lock = threading.Lock()
        self._related: dict[tuple[str, str], Informer] | None = {}

    def related(self, parent: KubeObject) -> ObjectMap:
        """The related objects of a parent, with an entry for each kind of its rules."""
        found: ObjectMap = {}
        rules = self._rules(parent)
        resources = [self._discovery.resource(rule.api_version, rule.resource) for rule in rules]
        # All informers start before the first check: one retry for each would take half a minute.
        informers = [self._informer(resource) for resource in resources]
        for rule, resource, informer in zip(rules, resources, informers, strict=True):
            if not informer.synced:
                raise RelatedNotSyncedError(f"related {rule.resource} not synced yet")
            rule.check()
            found.setdefault(group_key(resource.api_version, resource.name), {})
            for obj in informer.store.all():
                if rule.selects(obj, self._labels_of_namespace):
                    objects.insert(found, obj)
        return found

    def stop(self) -> None:
        """Release the informers."""
        with self._lock:
            related, self._related = self._related or {}, None
        for informer in related.values():
            informer.unsubscribe(self)
            self._informers.release(informer)

    def _rules(self, parent: KubeObject) -> list[RelatedRule]:
        if self._hook is None:
            return []
        rules = self._answers.get(parent)
        if rules is None:
            request = {"controller": self._controller, "parent": parent}
            rules = self._hook.call(request, CustomizeAnswer).related_resources or []
            self._answers.set(parent, rules)
        return rules

    def _informer(self, resource: Kind) -> Informer:
        key = (resource.api_version, resource.plural)
        with self._lock:
            if self._related is None:
                raise SyncError("the controller was stopped")
            if key in self._related:
                return self._related[key]
            informer = self._related[key] = self._informers.acquire(resource)
            informer.subscribe(self, lambda old, new: self._changed(key, old, new))
            return informer

    def _changed(
        self, key: tuple[str, str], old: KubeObject | None, new: KubeObject | None
    ) -> None:
        """Queue the parents whose rules select the old or the new object."""
        if old and new and meta.resource_version(old) == meta.resource_version(new):
            return
        changed = [obj for obj in (old, new) if obj is not None]
        for parent in self._parents():
            try:
                rules = self._rules(parent)
                if self._any_selects(rules, key, changed):
                    self._enqueue(parent)
            except SyncError as error:
                # The sync of the parent fails with the same error, and is retried.
                LOG.debug("related of %s: %s", objects.describe(parent), error)

    def _any_selects(
        self, rules: list[RelatedRule], key: tuple[str, str], changed: list[KubeObject]
    ) -> bool:
        for rule in rules:
            if (rule.api_version, rule.resource) == key:
                rule.check()
                if any(rule.selects(obj, self._labels_of_namespace) for obj in changed):
                    return True
        return False

    def _labels_of_namespace(self, name: str) -> Mapping[str, str] | None:
        informer = self._informer(self._discovery.resource("v1", "namespaces"))
        if not informer.synced:
            raise RelatedNotSyncedError("namespaces not synced yet")
        found = informer.store.get("", name)
        return None if found is None else meta.labels(found)
