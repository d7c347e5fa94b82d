"""Rules of a customize hook's answer: which objects a parent relates to. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.kube import meta
from deploy.local.standin.errors import SyncError
from deploy.local.standin.labels import LabelSelector, Strict, selects

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from deploy.kube.kinds import KubeObject


class RelatedRule(Strict):
    """An item of relatedResources."""

    api_version: str
    resource: str
    label_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    namespace: str | None = None
    names: list[str] | None = None

    def check(self) -> None:
        """Raise SyncError for a combination that Metacontroller refuses."""
        what = f"related rule for {self.resource}.{self.api_version}"
        if self.names and (self.label_selector or self.namespace_selector) is not None:
            raise SyncError(f"{what} cannot have both names and labelSelector/namespaceSelector")
        if self.namespace and self.namespace_selector is not None:
            raise SyncError(f"{what} cannot have both namespace and namespaceSelector")

    def selects(
        self,
        obj: KubeObject,
        labels_of_namespace: Callable[[str], Mapping[str, str] | None] = lambda _: None,
    ) -> bool:
        """Whether the rule selects an object of its resource.

        For cluster-scoped objects, the rule's namespace is ignored. Names without a namespace
        select objects of every namespace. labels_of_namespace: returns None if the namespace does
        not exist.
        """
        if self.namespace_selector is not None:
            found = labels_of_namespace(meta.namespace(obj))
            if found is None or not selects(self.namespace_selector, found):
                return False
        if self.namespace and meta.namespace(obj) not in {"", self.namespace}:
            return False
        if self.names and meta.name(obj) not in self.names:
            return False
        return selects(self.label_selector, meta.labels(obj))


class CustomizeAnswer(Strict):
    """Answer of a customize hook."""

    related_resources: list[RelatedRule] | None = None
