"""Names, labels and annotations of the objects that the hooks write and read."""

from __future__ import annotations

import hashlib

from crds.base import GROUP
from crds.naming import claim_name

LABEL_LENGTH_MAX = 63
NAME_LENGTH_MAX = 253

# On a LocalModelNode, a label for each group of the node: a group's hook selects by it.
GROUP_LABEL_DOMAIN = f"nodegroup.{GROUP}"
# On a Node, a label for each of its groups that selects by name: the group's volumes require it.
MEMBER_LABEL_DOMAIN = f"localmodelnodegroup.{GROUP}"
# On a LocalModelNode whose labels somebody changed, until they are restored.
RESTORED_ANNOTATION = f"{GROUP}/localmodel-labels-restored-at"
# On a Node, a label for each cached model; the namespace of a LocalModelNamespaceCache is a prefix.
WARM_LABEL_DOMAIN = f"localmodel.{GROUP}"

# On a pod, the models that it asks for, by which the policy of deploy/pods mounts their claims.
POD_MODEL_LABEL = f"{WARM_LABEL_DOMAIN}/model"

# On a workload, a label for each model that its pod template asks for.
WORKLOAD_LABEL_DOMAIN = f"model.{WARM_LABEL_DOMAIN}"

# On a service that uses a cache, set by KServe's webhooks or by users (pkg/constants of KServe).
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

    It is not unique: cache a on group g-b in namespace c has the same name as a on g in b-c.
    """
    return f"{claim_name(cache, group)}-{namespace}"


def volume_name(cache: str, group: str, namespace: str) -> str:
    """Unique name of the volume behind the claim in one namespace.

    KServe's name if it is unique, or else with a digest of cache, group and namespace.
    """
    name = kserve_volume_name(cache, group, namespace)
    unique = name.count("-") == 2 and len(name) <= NAME_LENGTH_MAX
    return name if unique else own_volume_name(cache, group, namespace)


def own_volume_name(cache: str, group: str, namespace: str) -> str:
    """Unique name of the volume, always with the digest, so that it is never KServe's name."""
    name = kserve_volume_name(cache, group, namespace)
    return _told_apart(name, f"{cache}/{group}/{namespace}", NAME_LENGTH_MAX)


def label_value(name: str) -> str:
    """A name as a label value: a name that is too long is cut, and gets a digest."""
    return name if len(name) <= LABEL_LENGTH_MAX else _told_apart(name, name, LABEL_LENGTH_MAX)


def _told_apart(name: str, whole: str, most: int) -> str:
    """The name with a digest of `whole`, cut to a number of characters."""
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{name[: most - 9]}-{digest}"


def group_label(group: str) -> str:
    """Label key of a LocalModelNode for a group."""
    return f"{GROUP_LABEL_DOMAIN}/{label_value(group)}"


def member_label(group: str) -> str:
    """Label key of a Node, without a value, for a group that selects by name."""
    return f"{MEMBER_LABEL_DOMAIN}/{label_value(group)}"


def is_member_label(label: str) -> bool:
    """Whether a label key is one of member_label."""
    return label.startswith(f"{MEMBER_LABEL_DOMAIN}/")


def workload_label(cache: str) -> str | None:
    """Label key of a workload that uses a cache; None: no label can have this name."""
    return f"{WORKLOAD_LABEL_DOMAIN}/{cache}" if len(cache) <= LABEL_LENGTH_MAX else None


def warm_label(cache: str, namespace: str) -> str:
    """Label key of a Node that has the model of a cache; the value is the model's key."""
    domain = f"{namespace}.{WARM_LABEL_DOMAIN}" if namespace else WARM_LABEL_DOMAIN
    return f"{domain}/{label_value(cache)}"


def is_warm_label(label: str) -> bool:
    """Whether a label key is one of warm_label."""
    domain, slash, _ = label.partition("/")
    return bool(slash) and (domain == WARM_LABEL_DOMAIN or domain.endswith("." + WARM_LABEL_DOMAIN))
