"""Names and labels of the objects that the hooks make."""

from __future__ import annotations

import hashlib

from crds.base import GROUP
from crds.naming import claim_name

LABEL_LENGTH_MAX = 63

# On a LocalModelNode, one for each group that the node is in: what a group's hook selects by.
GROUP_LABEL_DOMAIN = f"nodegroup.{GROUP}"
# On a LocalModelNode whose labels somebody changed, until they are back.
RESTORED_ANNOTATION = f"{GROUP}/localmodel-labels-restored-at"
# On a Node, one for each warm model; a namespace's models have the namespace in front.
WARM_LABEL_DOMAIN = f"localmodel.{GROUP}"

# What KServe's own webhooks set on a service that uses a cache, and what users set there
# (pkg/constants of KServe).
SERVICE_CACHE_LABEL = f"internal.{GROUP}/localmodel"
SERVICE_CACHE_NAMESPACE_LABEL = f"internal.{GROUP}/localmodel-namespace"
SERVICE_GROUP_ANNOTATION = f"{GROUP}/nodegroup"
SERVICE_DISABLE_ANNOTATION = f"{GROUP}/disable-localmodel"

# On claims and volumes.
CACHE_LABEL = f"{GROUP}/localmodel"
CACHE_NAMESPACE_LABEL = f"{GROUP}/localmodel-namespace"
NODE_GROUP_LABEL = f"{GROUP}/localmodelnodegroup"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "localmodel"


def volume_name(cache: str, group: str, namespace: str) -> str:
    """KServe's name of the volume behind the claim in one namespace."""
    return f"{claim_name(cache, group)}-{namespace}"


def group_label(group: str) -> str:
    """Label key that a LocalModelNode carries for a group."""
    return f"{GROUP_LABEL_DOMAIN}/{group}"


def warm_label(cache: str, namespace: str) -> str:
    """Label key that a Node carries while it has the model of a cache; its value is the key.

    A cache's name that is too long for a label is cut, and told apart by a hash.
    """
    domain = f"{namespace}.{WARM_LABEL_DOMAIN}" if namespace else WARM_LABEL_DOMAIN
    name = cache
    if len(name) > LABEL_LENGTH_MAX:
        digest = hashlib.sha256(cache.encode()).hexdigest()[:8]
        name = f"{cache[: LABEL_LENGTH_MAX - 9]}-{digest}"
    return f"{domain}/{name}"


def is_warm_label(label: str) -> bool:
    """Whether a label key of a Node is one of ours."""
    domain, slash, _ = label.partition("/")
    return bool(slash) and (domain == WARM_LABEL_DOMAIN or domain.endswith("." + WARM_LABEL_DOMAIN))
