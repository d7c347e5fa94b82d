"""DecoratorController: labels, annotations and attachments of existing objects."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, ClassVar

from deploy.kube import meta
from deploy.kube.errors import ConflictError, NotFoundError
from deploy.local.standin import objects
from deploy.local.standin.answers import Answer, DecoratorAnswer
from deploy.local.standin.children import DECORATOR_ANNOTATION, annotate_for
from deploy.local.standin.controller import Controller, Shared
from deploy.local.standin.spec import parse_decorator
from deploy.local.standin.writes import drop_finalizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.kube.kinds import KubeObject
    from deploy.local.standin.objects import ObjectMap

LOG = logging.getLogger(__name__)


class DecoratorController(Controller):
    """Runs one DecoratorController."""

    finalizer_prefix: ClassVar[str] = "decoratorcontroller"
    parent_field: ClassVar[str] = "object"
    children_field: ClassVar[str] = "attachments"
    answer: ClassVar[type[Answer]] = DecoratorAnswer

    def __init__(self, controller: KubeObject, shared: Shared) -> None:
        """Raises RefusedError and NotServedError."""
        spec = parse_decorator(controller)
        super().__init__(
            controller,
            shared,
            parent_rules=spec.resources,
            child_rules=spec.attachments,
            spec=spec,
        )

    def observe(self, parent: KubeObject) -> ObjectMap:
        """The attachments that this decorator created for a parent."""
        observed: ObjectMap = {}
        namespace = meta.namespace(parent)
        for resource, informer in self.child_informers():
            observed.setdefault(objects.group_key(resource.api_version, resource.name), {})
            for child in informer.store.owned_by(meta.uid(parent)):
                mine = meta.annotations_of(child).get(DECORATOR_ANNOTATION) == self.name
                if mine and (not namespace or meta.namespace(child) == namespace):
                    objects.insert(observed, child)
        return observed

    def conclude(
        self, parent: KubeObject, observed: ObjectMap, desired: ObjectMap, answer: Answer
    ) -> None:
        """Write the parent; if that succeeded, the attachments."""
        try:
            self._update_parent(parent, answer)
        except (NotFoundError, ConflictError) as error:
            # The parent was deleted or changed: its watch event causes the next sync.
            LOG.debug("%s: %s", self.name, error)
            return
        for group in desired.values():
            for child in group.values():
                annotate_for(self.name, child)
        self.manage_children(parent, observed, desired)

    def on_orphan(self, child: KubeObject) -> None:
        """Ignore the object: decorators adopt nothing."""

    def _update_parent(self, parent: KubeObject, answer: Answer) -> None:
        """Write the status, labels and annotations of the answer to the parent."""
        if not isinstance(answer, DecoratorAnswer):
            raise TypeError(f"not an answer to a decorator: {answer}")
        updated = copy.deepcopy(parent)
        resource = self.parent_resource(parent)
        changed = update_strings(updated, "labels", answer.labels)
        changed |= update_strings(updated, "annotations", answer.annotations)
        if answer.status is not None and not objects.same(parent.get("status"), answer.status):
            changed = True
            updated["status"] = answer.status
            if resource.has_status:
                stored = self.shared.writer.update(updated, "status")
                # The update below needs the newest resourceVersion.
                updated["metadata"]["resourceVersion"] = meta.resource_version(stored)
        if answer.finalized:
            changed |= drop_finalizer(updated, self.finalizer)
        if changed:
            LOG.info("%s: updating %s", self.name, objects.describe(parent))
            self.shared.writer.update(updated)


def update_strings(obj: KubeObject, field: str, updates: Mapping[str, str | None] | None) -> bool:
    """Set labels or annotations; None removes one. Returns whether the object changed."""
    before = meta.metadata(obj).get(field) or {}
    after = {**before, **(updates or {})}
    kept = {key: value for key, value in after.items() if value is not None}
    if kept == before:
        return False
    obj["metadata"][field] = kept
    return True
