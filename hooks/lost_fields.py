"""Detection of objects of another CRD, which drops our fields.

KServe has CRDs with the same names, and an upgrade of its chart replaces ours. Objects then lack
the fields that only ours have, and a hook that used them would remove models from nodes.
"""

from __future__ import annotations

from functools import singledispatch

from msgspec import UNSET

from crds.nodegroup import LocalModelNodeGroup
from hooks import naming
from hooks.observed import Cache, Node


@singledispatch
def lost_field(_obj: object) -> str | None:
    """The name of a missing field that each object of our CRD has, or None.

    Our schema of caches and groups has a default for status.observedGeneration, so that each object
    has the field as soon as our CRD is served. For a second after KServe's CRD has replaced ours,
    old watches still add the default to objects of KServe's CRD. Then the short form shows the
    change: our schema requires it unless KServe's form is used.
    """
    return None


@lost_field.register
def _(cache: Cache) -> str | None:
    if cache.status.observed_generation is None:
        return "status.observedGeneration"
    whole = bool(cache.spec.group_names) or cache.imported
    return None if whole or cache.deleting else "spec.nodeGroup"


@lost_field.register
def _(group: LocalModelNodeGroup) -> str | None:
    if group.status.observed_generation is None:
        return "status.observedGeneration"
    spec = group.spec
    whole = spec.node_selector is not None or spec.persistent_volume_spec is not None
    return None if whole else "spec.nodeSelector"


@lost_field.register
def _(node: Node) -> str | None:
    if node.spec.node_ready is not UNSET:
        return None
    # The node's hook writes the field together with the labels; KServe's objects have neither.
    ours = any(label.startswith(naming.GROUP_LABEL_DOMAIN) for label in node.metadata.labels or ())
    return "spec.nodeReady" if ours else None


def explain_loss(kind: str, name: str, field: str) -> str:
    """The message: what is wrong, and what to do."""
    return (
        f"{kind} {name!r} came without {field}: the CRD that is served for {kind} is "
        "not localmodel's, and drops its fields (KServe's chart kserve-localmodel-crd has one of "
        "that name). Nothing is changed until localmodel's CRDs (crds/manifests) are applied again"
    )
