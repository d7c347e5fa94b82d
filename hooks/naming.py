"""Names and labels of the objects that the hooks make."""

from __future__ import annotations

import hashlib

from localmodel.crds.base import GROUP
from localmodel.crds.naming import claim_name

LABEL_LENGTH_MAX = 63
NAME_LENGTH_MAX = 253

# On a LocalModelNode, one for each group that the node is in: what a group's hook selects by.
GROUP_LABEL_DOMAIN = f"nodegroup.{GROUP}"
# On a Node, one for each group that it is in and that selects by name: what its volumes ask for.
MEMBER_LABEL_DOMAIN = f"localmodelnodegroup.{GROUP}"
# On a LocalModelNode whose labels somebody changed, until they are back.
RESTORED_ANNOTATION = f"{GROUP}/localmodel-labels-restored-at"
# On a Node, one for each warm model; a namespace's models have the namespace in front.
WARM_LABEL_DOMAIN = f"localmodel.{GROUP}"

# What KServe's own webhooks set on a service that uses a cache, and what users set there
# (pkg/constants of KServe).
SERVICE_CACHE_LABEL = f"internal.{GROUP}/localmodel"
SERVICE_CACHE_NAMESPACE_LABEL = f"internal.{GROUP}/localmodel-namespace"
SERVICE_CLAIM_ANNOTATION = f"internal.{GROUP}/localmodel-pvc-name"
SERVICE_ADAPTERS_ANNOTATION = f"internal.{GROUP}/localmodel-lora"
SERVICE_GROUP_ANNOTATION = f"{GROUP}/nodegroup"
SERVICE_DISABLE_ANNOTATION = f"{GROUP}/disable-localmodel"

# On claims and volumes.
CACHE_LABEL = f"{GROUP}/localmodel"
CACHE_NAMESPACE_LABEL = f"{GROUP}/localmodel-namespace"
NODE_GROUP_LABEL = f"{GROUP}/localmodelnodegroup"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "localmodel"


def kserve_volume_name(cache: str, group: str, namespace: str) -> str:
    """KServe's name of the volume behind the claim in one namespace.

    It is not that of one claim alone: cache a on group g-b in namespace c, and a on g in b-c.
    """
    return f"{claim_name(cache, group)}-{namespace}"


def volume_name(cache: str, group: str, namespace: str) -> str:
    """Name of the volume behind the claim in one namespace, and of no other.

    KServe's, where no other cache, group and namespace can have it, or else with a digest of the
    three.
    """
    name = kserve_volume_name(cache, group, namespace)
    unique = name.count("-") == 2 and len(name) <= NAME_LENGTH_MAX
    return name if unique else own_volume_name(cache, group, namespace)


def own_volume_name(cache: str, group: str, namespace: str) -> str:
    """Name of that volume where it must not be one that KServe has made: with the digest."""
    name = kserve_volume_name(cache, group, namespace)
    return _told_apart(name, f"{cache}/{group}/{namespace}", NAME_LENGTH_MAX)


def label_value(name: str) -> str:
    """A name as the value of a label: one that is too long is cut, and told apart by a digest."""
    return name if len(name) <= LABEL_LENGTH_MAX else _told_apart(name, name, LABEL_LENGTH_MAX)


def _told_apart(name: str, whole: str, most: int) -> str:
    """A name with a digest of what makes it another than its like, cut where it is too long."""
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{name[: most - 9]}-{digest}"


def group_label(group: str) -> str:
    """Label key that a LocalModelNode carries for a group."""
    return f"{GROUP_LABEL_DOMAIN}/{label_value(group)}"


def member_label(group: str) -> str:
    """Label key that a Node carries, without a value, while it is in a group that needs it."""
    return f"{MEMBER_LABEL_DOMAIN}/{label_value(group)}"


def is_member_label(label: str) -> bool:
    """Whether a label key of a Node says of which group it is."""
    return label.startswith(f"{MEMBER_LABEL_DOMAIN}/")


def warm_label(cache: str, namespace: str) -> str:
    """Label key that a Node carries while it has the model of a cache; its value is the key."""
    domain = f"{namespace}.{WARM_LABEL_DOMAIN}" if namespace else WARM_LABEL_DOMAIN
    return f"{domain}/{label_value(cache)}"


def is_warm_label(label: str) -> bool:
    """Whether a label key of a Node is one of ours."""
    domain, slash, _ = label.partition("/")
    return bool(slash) and (domain == WARM_LABEL_DOMAIN or domain.endswith("." + WARM_LABEL_DOMAIN))
