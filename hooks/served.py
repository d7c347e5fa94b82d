"""Whether the API server serves our schema of a kind, or one that drops our fields.

KServe has CRDs of the same names: an upgrade of its chart puts them back. Objects then come without
what they do not know, and a hook that believed them would take models off the nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crds.cache import LocalModelCache, LocalModelNamespaceCache
from crds.node import LocalModelNode
from crds.nodegroup import LocalModelNodeGroup
from hooks import naming

if TYPE_CHECKING:
    from crds.base import Resource


def lost_field(obj: Resource) -> str | None:
    """The field that an object must have come with and has not, or None."""
    if isinstance(obj, LocalModelCache | LocalModelNamespaceCache | LocalModelNodeGroup):
        # Our schema has a default for it, which holds from the moment when it is served: the first
        # sync after a takeover or an upgrade has one too.
        if obj.status.observed_generation is None:
            return "status.observedGeneration"
        # For a second after the change, watches of the former schema go on, and give the default to
        # what was stored by the new one.
        return _lost_form(obj)
    if isinstance(obj, LocalModelNode) and "node_ready" not in obj.spec.model_fields_set:
        # The node's hook writes it together with the labels; KServe's own objects have neither.
        ours = any(label.startswith(naming.GROUP_LABEL_DOMAIN) for label in obj.metadata.labels)
        return "spec.nodeReady" if ours else None
    return None


def _lost_form(obj: LocalModelCache | LocalModelNamespaceCache | LocalModelNodeGroup) -> str | None:
    """The short form, which our schema demands unless KServe's own is there."""
    if isinstance(obj, LocalModelNodeGroup):
        spec = obj.spec
        whole = spec.node_selector is not None or spec.persistent_volume_spec is not None
        return None if whole else "spec.nodeSelector"
    whole = bool(obj.spec.group_names) or obj.spec.pvc_ref is not None
    return None if whole or obj.deleting else "spec.nodeGroup"


def explain_loss(obj: Resource, field: str) -> str:
    """What is the matter, and what to do."""
    kind = type(obj).__name__
    return (
        f"{kind} {obj.metadata.name!r} came without {field}: the CRD that is served for {kind} is "
        "not localmodel's, and drops its fields (KServe's chart kserve-localmodel-crd has one of "
        "that name). Nothing is changed until localmodel's CRDs (crds/manifests) are applied again"
    )
