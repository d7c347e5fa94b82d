"""PersistentVolumes and claims, with which pods mount a model.

Names and shape are those of KServe. Volume and claim name each other from the start, so that
neither a default StorageClass nor another claim can separate them. For such a pair, Kubernetes
compares neither size nor class nor access modes: a claim may request less than its volume has.

Kubernetes refuses changes of a volume's path and nodes, and changes of a claim but a larger
request. So existing ones stay as they are when the group's template changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crds.naming import claim_name, model_directory
from crds.quantity import parse_quantity
from crds.volume_equivalence import normalized_nodes, normalized_path
from crds.volumes import NodeSelectorRequirement, NodeSelectorTerm
from hooks import naming
from hooks.claim_limits import NamespaceLimits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crds.nodegroup import LocalModelNodeGroup, LocalModelNodeGroupSpec
    from crds.volumes import PersistentVolumeClaimSpec
    from hooks.envelope import Object
    from hooks.observed import Cache

NO_LIMITS = NamespaceLimits()
# Deleting or recycling a volume would delete the root directory of all models.
_RETAINED = {"persistentVolumeReclaimPolicy": "Retain"}

# A volume in these phases does not bind again: it has to be deleted and created again.
_SPENT_PHASES = ("Released", "Failed")


def node_selector_terms(spec: LocalModelNodeGroupSpec) -> tuple[NodeSelectorTerm, ...]:
    """The node selector of a group, from either form. Without terms, it selects no node."""
    if spec.node_selector is not None:
        return (
            NodeSelectorTerm(
                match_expressions=tuple(
                    NodeSelectorRequirement(key=key, operator="In", values=(value,))
                    for key, value in sorted(spec.node_selector.items())
                )
            ),
        )
    affinity = spec.persistent_volume_spec and spec.persistent_volume_spec.node_affinity
    if affinity and affinity.required:
        return affinity.required.node_selector_terms
    return ()


def selects_by_name(group: LocalModelNodeGroup) -> bool:
    """Whether a group selects nodes by name, so that its volumes require a label of the nodes."""
    return any(term.match_fields for term in node_selector_terms(group.spec))


def volume_name_of(
    cache: str,
    group: str,
    namespace: str,
    claim: Object | None,
    volumes: Mapping[str, Object],
    *,
    by_name: bool = False,
) -> str:
    """The name of the volume behind the claim of a cache on a group in a namespace.

    claim: the existing claim of that name. volumes: our existing volumes, by name. by_name: whether
    the group selects nodes by name.

    An existing volume with KServe's name or an older name of ours keeps it, but only if the volume
    certainly belongs to this claim: a tenant can create a claim that names the volume of another
    claim, but cannot make it bound. With by_name, a new volume never has KServe's name: a volume of
    KServe with that name may exist, without the required label.
    """
    plain = naming.kserve_volume_name(cache, group, namespace)
    own = naming.own_volume_name(cache, group, namespace)
    asked = claim["spec"].get("volumeName") if claim else None
    if asked in {plain, own} and is_bound(claim):
        return str(asked)
    for name in (plain, own):
        there = volumes.get(name)
        if there is not None and asked in {None, name} and not _spent(there):
            ref = there["spec"].get("claimRef") or {}
            if (ref.get("namespace"), ref.get("name")) == (namespace, claim_name(cache, group)):
                return name
    # The name with the digest cannot belong to another claim.
    by_name = by_name or asked == own
    return own if by_name else naming.volume_name(cache, group, namespace)


def make_claim(
    cache: Cache,
    group: LocalModelNodeGroup,
    namespace: str,
    found: Object | None = None,
    *,
    volume: str,
    limits: NamespaceLimits = NO_LIMITS,
) -> Object:
    """The claim for a cache on a group in a namespace.

    found: the existing claim of that name, perhaps of KServe: its spec stays unchanged. volume:
    name of the volume behind the claim. limits: those of the namespace.
    """
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(cache.metadata.name, group.metadata.name),
            "namespace": namespace,
            "labels": _labels(cache, group),
        },
        "spec": found["spec"] if found else _new_claim_spec(cache, group.spec, volume, limits),
    }


def make_volume(
    cache: Cache,
    group: LocalModelNodeGroup,
    namespace: str,
    path: str,
    found: Object | None = None,
    *,
    name: str,
    adopted: bool = False,
) -> Object:
    """The volume behind the claim for a cache on a group in a namespace.

    path: directory of the nodes, for the short form. found: the existing claim. adopted:
    whether the volume exists and becomes the cache's: then its spec stays unchanged.
    """
    spec = _RETAINED if adopted else _new_volume_spec(group, path, found)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "labels": _labels(cache, group),
        },
        "spec": spec
        | {
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": namespace,
                "name": claim_name(cache.metadata.name, group.metadata.name),
            },
        },
    }


def _new_volume_spec(group: LocalModelNodeGroup, path: str, found: Object | None) -> Object:
    claim = _claim_spec(group.spec)
    if found:
        claim["storageClassName"] = found["spec"].get("storageClassName") or ""
    template = group.spec.persistent_volume_spec
    if template is not None:
        spec = template.model_dump(mode="json", by_alias=True, exclude_unset=True)
    else:
        spec = {
            "capacity": {"storage": group.spec.storage_limit},
            "accessModes": claim["accessModes"],
            "volumeMode": "Filesystem",
            "local": {"path": path},
        }
    if terms := _terms_of(group):
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
    if "local" in spec:
        # Read-only: otherwise a pod's fsGroup or a stray write would change files of all tenants,
        # and kubelet would create an empty directory for a missing sub-path. (It refuses to mount a
        # hostPath volume with mount options.)
        spec.setdefault("mountOptions", ["ro"])
    # Volume and claim would bind with different classes too; people expect the same.
    return spec | _RETAINED | {"storageClassName": claim["storageClassName"]}


def without_spent(volumes: Iterable[Object], observed: dict[str, Object]) -> list[Object]:
    """The volumes without those that exist and must be made anew.

    A volume whose claim was deleted is Released and keeps the uid of that claim, which blocks the
    next claim of that name. A volume that no claim has bound yet may lead to the model of a cache
    that was deleted and made again. Metacontroller deletes a volume that is left out here, and the
    next sync creates it again.
    """
    return [
        volume
        for volume in volumes
        if (there := observed.get(volume["metadata"]["name"])) is None
        or not (_spent(there) or _leads_elsewhere(volume, there))
    ]


def is_outdated(desired: Object, observed: Object) -> bool:
    """Whether an observed volume has other nodes or another path than the desired one.

    A volume that shows the whole root is not outdated by that: the model is there too.
    """
    if _nodes(desired) != _nodes(observed):
        return True
    return _path(desired) != _path(observed) and not shows_root(desired, observed)


def shows_root(desired: Object, observed: Object) -> bool:
    """Whether an observed volume shows all models of a node, and the desired one a model alone."""
    there, wanted = _path(observed), _path(desired)
    if there is None or wanted is None:
        return False
    return wanted == model_directory(there, wanted.rpartition("/")[2])


def _nodes(volume: Object) -> Any:
    """Nodes of a volume, in a form that can be compared.

    The requirement of our label is ignored: volumes of KServe and older ones of ours lack it, and
    stay as they are.
    """
    return normalized_nodes(volume["spec"].get("nodeAffinity"), but=naming.is_member_label)


def _path(volume: Object) -> str | None:
    """Path of a volume, in a form that can be compared."""
    spec = volume["spec"]
    return normalized_path((spec.get("local") or spec.get("hostPath") or {}).get("path"))


def unchanged(child: Object) -> Object:
    """An existing child as a desired child, unchanged."""
    known = ("name", "namespace", "labels")
    return {
        "apiVersion": child["apiVersion"],
        "kind": child["kind"],
        "metadata": {key: child["metadata"][key] for key in known if key in child["metadata"]},
        "spec": child["spec"],
    }


def is_bound(claim: Object | None) -> bool:
    """Whether a claim is bound, and so has a volume."""
    return claim is not None and claim.get("status", {}).get("phase") == "Bound"


def is_going(claim: Object) -> bool:
    """Whether a claim is being deleted: Kubernetes lets no new pod use it."""
    return "deletionTimestamp" in claim["metadata"]


def _leads_elsewhere(desired: Object, observed: Object) -> bool:
    """Whether an observed volume that is not bound has another path than the desired one."""
    free = observed.get("status", {}).get("phase") == "Available"
    return free and _path(desired) != _path(observed)


def _spent(volume: Object | None) -> bool:
    return volume is not None and volume.get("status", {}).get("phase") in _SPENT_PHASES


def _new_claim_spec(
    cache: Cache, group: LocalModelNodeGroupSpec, volume: str, limits: NamespaceLimits
) -> Object:
    """The spec of a new claim: the group's template, with a request that the namespace accepts.

    The request is that of the template, or the model's size if the template has none or if limits
    of the namespace refuse it: the volume binds with any request, and the namespace uses no more
    than the model's size.
    """
    spec = _claim_spec(group)
    resources = spec.get("resources") or {}
    requests = resources.get("requests") or {}
    own, size = requests.get("storage"), _size_on(cache, group)
    if own is None:
        candidates = [size]
    elif parse_quantity(size) < parse_quantity(own):
        candidates = [own, size]
    else:
        candidates = [own]
    specs = [
        spec
        | {"resources": resources | {"requests": requests | {"storage": limits.at_least(one)}}}
        | {"volumeName": volume}
        for one in candidates
    ]
    return next((one for one in specs if not limits.refusals(one)), specs[-1])


def _size_on(cache: Cache, group: LocalModelNodeGroupSpec) -> str:
    """The declared size of the model, or the capacity of the volume if that is less."""
    template = group.persistent_volume_spec
    capacity = ((template and template.capacity) or {}).get("storage", group.storage_limit)
    return min(cache.placed.model_size, capacity, key=parse_quantity)


def _claim_spec(spec: LocalModelNodeGroupSpec) -> dict[str, Any]:
    template: PersistentVolumeClaimSpec | None = (
        spec.persistent_volume_claim_spec or spec.storage_spec
    )
    claim: dict[str, Any] = (
        template.model_dump(mode="json", by_alias=True, exclude_unset=True) if template else {}
    )
    claim.setdefault("accessModes", ["ReadOnlyMany"])
    # '' and not absent: an absent class becomes the default StorageClass, and the claim would count
    # in the quota of that class.
    claim["storageClassName"] = claim.get("storageClassName") or ""
    return claim


def _terms_of(group: LocalModelNodeGroup) -> list[Object]:
    """The group's terms for its volumes.

    When Kubernetes checks whether a node may mount a volume, it uses the node's labels and not its
    name: a term with matchFields would match every node. So such a term also requires the label
    that the nodes of the group get (hooks.nodes).
    """
    label = {"key": naming.member_label(group.metadata.name), "operator": "Exists"}
    terms = []
    for asked in node_selector_terms(group.spec):
        term = _term(asked)
        if asked.match_fields:
            term["matchExpressions"] = [*term.get("matchExpressions", ()), label]
            if not all(map(_may_be_of_a_volume, asked.match_fields)):
                del term["matchFields"]
        terms.append(term)
    return terms


def _may_be_of_a_volume(field: NodeSelectorRequirement) -> bool:
    """Whether the API server accepts the field in a volume (pkg/apis/core/validation)."""
    return field.operator in {"In", "NotIn"} and len(field.values) == 1


def _term(term: NodeSelectorTerm) -> Object:
    return term.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _labels(cache: Cache, group: LocalModelNodeGroup) -> dict[str, str]:
    labels = {
        naming.MANAGED_BY_LABEL: naming.MANAGED_BY,
        naming.CACHE_LABEL: naming.label_value(cache.metadata.name),
        naming.NODE_GROUP_LABEL: naming.label_value(group.metadata.name),
    }
    if cache.metadata.namespace:
        labels[naming.CACHE_NAMESPACE_LABEL] = cache.metadata.namespace
    return labels
