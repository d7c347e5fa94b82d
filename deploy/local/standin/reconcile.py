"""Reconciles the children of a parent with the desired children."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from deploy.kube import meta
from deploy.kube.errors import ApiError, ConflictError, NotFoundError
from deploy.local.standin import children, objects
from deploy.local.standin.children import Applied, Claim
from deploy.local.standin.errors import SyncError, brief, raise_all

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deploy.kube.kinds import Kind, KubeObject
    from deploy.local.standin.children import ApplyCache
    from deploy.local.standin.discovery import Discovery
    from deploy.local.standin.objects import ObjectMap
    from deploy.local.standin.spec import UpdateMethod
    from deploy.local.standin.writes import Writer

LOG = logging.getLogger(__name__)

# The update method by API group and kind.
Methods = dict[tuple[str, str], "UpdateMethod"]


class ChildReconciler:
    """Deletes, creates and updates children. Shared by all controllers."""

    def __init__(self, writer: Writer, discovery: Discovery, cache: ApplyCache) -> None:
        self._writer = writer
        self._discovery = discovery
        self._cache = cache

    def claim(
        self, resource: Kind, parent: KubeObject, candidates: list[KubeObject]
    ) -> list[KubeObject]:
        """Adopt and release candidates, and return those that are the parent's children."""
        claimed: list[KubeObject] = []
        errors: list[Exception] = []
        for child in candidates:
            decision = children.claim(parent, child)
            try:
                if decision is Claim.ADOPT:
                    self._adopt(resource, parent, child)
                elif decision is Claim.RELEASE:
                    self._release(resource, parent, child)
            except NotFoundError:
                continue
            except (ApiError, SyncError) as error:
                errors.append(error)
                continue
            if decision in {Claim.KEEP, Claim.ADOPT}:
                claimed.append(child)
        raise_all(errors)
        return claimed

    def manage(
        self, parent: KubeObject, observed: ObjectMap, desired: ObjectMap, methods: Methods
    ) -> None:
        """Delete undesired children and apply desired children. Raises all failures at the end."""
        errors: list[Exception] = []
        for group, found in sorted(observed.items()):
            for child in children.undesired(found, desired.get(group, {})):
                try:
                    self._delete(parent, child)
                except (ApiError, SyncError) as error:
                    errors.append(
                        SyncError(f"can't delete {objects.describe(child)}: {brief(error)}")
                    )
        for group, wanted in sorted(desired.items()):
            found = observed.get(group, {})
            for key, child in wanted.items():
                try:
                    self._apply(parent, found.get(key), child, methods)
                except (ApiError, SyncError) as error:
                    errors.append(
                        SyncError(f"can't apply {objects.describe(child)}: {brief(error)}")
                    )
        raise_all(errors)

    def _resource(self, child: KubeObject) -> Kind:
        return self._discovery.kind(child.get("apiVersion", ""), child.get("kind", ""))

    def _adopt(self, resource: Kind, parent: KubeObject, child: KubeObject) -> None:
        # As Metacontroller, check the parent in the API server too, and not only in the cache.
        self._writer.change(self._resource(parent), parent, _must_live)
        LOG.info("%s: adopting %s", objects.describe(parent), objects.describe(child))

        def edit(current: KubeObject) -> bool:
            kept = _references_but(current, parent)
            reference = children.controller_reference(parent)
            current["metadata"]["ownerReferences"] = [*kept, reference]
            return True

        self._writer.change(resource, child, edit)

    def _release(self, resource: Kind, parent: KubeObject, child: KubeObject) -> None:
        LOG.info("%s: releasing %s", objects.describe(parent), objects.describe(child))

        def edit(current: KubeObject) -> bool:
            current["metadata"]["ownerReferences"] = _references_but(current, parent)
            return True

        self._writer.change(resource, child, edit)

    def _delete(self, parent: KubeObject, child: KubeObject) -> None:
        LOG.info("%s: deleting %s", objects.describe(parent), objects.describe(child))
        try:
            self._writer.delete(self._resource(child), child)
        except NotFoundError:
            return
        self._cache.drop(children.cache_key(child))

    def _apply(
        self,
        parent: KubeObject,
        observed: KubeObject | None,
        desired: KubeObject,
        methods: Mapping[tuple[str, str], UpdateMethod],
    ) -> None:
        if observed is not None and meta.is_deleting(observed):
            return
        resource = self._resource(desired)
        sent = children.to_apply(parent, desired)
        digest = children.digest(sent)
        key = children.cache_key(sent)
        if observed is not None:
            last = self._cache.get(key)
            if last is not None and last.holds(digest, observed):
                return
            group = objects.api_group(resource.api_version)
            method = methods.get((group, resource.name), "OnDelete")
            if method == "OnDelete":
                self._cache.set(key, Applied.of(digest, observed))
                return
            if method == "Recreate":
                self._recreate(parent, observed, sent)
                return
        LOG.info("%s: applying %s", objects.describe(parent), objects.describe(sent))
        try:
            stored = self._writer.apply(sent)
        except ConflictError:
            return
        self._cache.set(key, Applied.of(digest, stored))

    def _recreate(self, parent: KubeObject, observed: KubeObject, sent: KubeObject) -> None:
        """Delete a child if an update would change it; the next sync creates it again."""
        key = children.cache_key(sent)
        keep = Applied.of(children.digest(sent), observed)
        try:
            result = self._writer.apply(sent, dry_run=True)
        except ApiError as error:
            if error.status not in {400, 403}:
                raise
            LOG.warning("%s would be refused: %s", objects.describe(sent), error)
            self._cache.set(key, keep)
            return
        if keep.generation != meta.generation(result) or keep.uid != meta.uid(result):
            raise SyncError("generation or UID changed during dry run for server-side apply")
        if objects.same(children.comparable(result), children.comparable(observed)):
            self._cache.set(key, keep)
            return
        self._delete(parent, observed)


def _references_but(obj: KubeObject, owner: KubeObject) -> list[KubeObject]:
    references = meta.owners(obj)
    return [one for one in references if one.get("uid") != meta.uid(owner)]


def _must_live(parent: KubeObject) -> bool:
    if meta.is_deleting(parent):
        raise SyncError(f"can't adopt: {objects.describe(parent)} has just been deleted")
    return False
