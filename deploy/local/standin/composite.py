"""CompositeController: children that belong to a parent."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from deploy.kube import meta
from deploy.kube.errors import ConflictError, NotFoundError
from deploy.local.standin import objects
from deploy.local.standin.answers import Answer, CompositeAnswer
from deploy.local.standin.children import CONTROLLER_UID, label_for
from deploy.local.standin.controller import Controller, Shared
from deploy.local.standin.errors import NotServedError, SyncError
from deploy.local.standin.spec import parse_composite
from deploy.local.standin.store import NOBODY

if TYPE_CHECKING:
    from deploy.kube.kinds import KubeObject
    from deploy.local.standin.objects import ObjectMap


class CompositeController(Controller):
    """Runs one CompositeController."""

    finalizer_prefix: ClassVar[str] = "compositecontroller"
    parent_field: ClassVar[str] = "parent"
    children_field: ClassVar[str] = "children"
    answer: ClassVar[type[Answer]] = CompositeAnswer

    def __init__(self, controller: KubeObject, shared: Shared) -> None:
        """Raises RefusedError and NotServedError."""
        spec = parse_composite(controller)
        rule = spec.parent_resource
        if not shared.discovery.resource(rule.api_version, rule.resource).has_status:
            raise NotServedError(f"{rule.resource} has no subresource status")
        super().__init__(
            controller,
            shared,
            parent_rules=[rule],
            child_rules=spec.child_resources,
            spec=spec,
        )

    def observe(self, parent: KubeObject) -> ObjectMap:
        """Adopt and release objects, and return the parent's children."""
        observed: ObjectMap = {}
        namespace = meta.namespace(parent)
        for resource, informer in self.child_informers():
            observed.setdefault(objects.group_key(resource.api_version, resource.name), {})
            candidates = [
                child
                for owner in (meta.uid(parent), NOBODY)
                for child in informer.store.owned_by(owner)
                if not namespace or meta.namespace(child) == namespace
            ]
            for child in self.shared.reconciler.claim(resource, parent, candidates):
                objects.insert(observed, child)
        return observed

    def conclude(
        self, parent: KubeObject, observed: ObjectMap, desired: ObjectMap, answer: Answer
    ) -> None:
        """Write finalizer, children and status; the status even if a child failed."""
        if answer.finalized:
            resource = self.parent_resource(parent)
            parent = self.shared.writer.remove_finalizer(resource, parent, self.finalizer)
        for group in desired.values():
            for child in group.values():
                label_for(parent, child)
        failure: SyncError | None = None
        try:
            self.manage_children(parent, observed, desired)
        except SyncError as error:
            failure = error
        try:
            self._write_status(parent, answer.status)
        except (NotFoundError, ConflictError):
            # The parent was deleted or changed: its watch event causes the next sync.
            return
        if failure is not None:
            raise failure

    def on_orphan(self, child: KubeObject) -> None:
        """Queue the parents that may adopt an object."""
        wanted = meta.labels(child).get(CONTROLLER_UID)
        if not wanted:
            return
        for informer in self.parents.values():
            for parent in informer.store.all():
                if meta.uid(parent) == wanted:
                    self.enqueue(parent)

    def _write_status(self, parent: KubeObject, status: KubeObject | None) -> None:
        wanted = {**(status or {}), "observedGeneration": meta.generation(parent)}

        def edit(current: KubeObject) -> bool:
            if objects.same(current.get("status"), wanted):
                return False
            current["status"] = wanted
            return True

        self.shared.writer.change(self.parent_resource(parent), parent, edit, "status")
