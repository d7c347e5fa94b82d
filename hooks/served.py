"""Whether the API server serves our schema of a kind, or one that drops our fields.

KServe has CRDs of the same names: an upgrade of its chart puts them back. Objects then come without
what they do not know, and a hook that believed them would take models off the nodes.
"""

from __future__ import annotations

from functools import singledispatch

from msgspec import UNSET

from localmodel.crds.nodegroup import LocalModelNodeGroup
from localmodel.hooks import naming
from localmodel.hooks.observed import Cache, Node


@singledispatch
def lost_field(_obj: object) -> str | None:
    """The field that an object must have come with and has not, or None.

    Our schema of caches and groups has a default for status.observedGeneration, which holds from
    the moment when it is served: the first sync after a takeover or an upgrade has one too. For a
    second after the change, watches of the former schema go on, and give the default to what was
    stored by the new one: then the short form tells, which our schema demands unless KServe's own
    is there.
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
    # The node's hook writes it together with the labels; KServe's own objects have neither.
    ours = any(label.startswith(naming.GROUP_LABEL_DOMAIN) for label in node.metadata.labels or ())
    return "spec.nodeReady" if ours else None


def explain_loss(kind: str, name: str, field: str) -> str:
    """What is the matter, and what to do."""
    return (
        f"{kind} {name!r} came without {field}: the CRD that is served for {kind} is "
        "not localmodel's, and drops its fields (KServe's chart kserve-localmodel-crd has one of "
        "that name). Nothing is changed until localmodel's CRDs (crds/manifests) are applied again"
    )
