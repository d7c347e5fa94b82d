"""Names of objects that both the hooks and the agents compute."""

from __future__ import annotations

from crds.base import GROUP

# An annotation of a pod, by which the agent of its node says when its model was cached.
CACHED_AT_ANNOTATION = f"localmodel.{GROUP}/cached-at"
# The label of a Node, and of its LocalModelNode, that names its zone.
ZONE_LABEL = "topology.kubernetes.io/zone"


def claim_name(cache: str, group: str) -> str:
    """Name of the claim for a cache on a group, in any namespace, as in KServe."""
    return f"{cache}-{group}"


def model_directory(root: str, key: str) -> str:
    """Directory of a node that shows one model and nothing else, below the agent's root."""
    return f"{root.rstrip('/')}/volumes/{key}"
