"""PersistentVolumes and claims that let a pod mount a model.

Names and shape are KServe's. A volume is bound to its claim from the start, both ways, so that
neither a default StorageClass nor another claim gets between them. Of two that name each other,
Kubernetes compares neither size nor class nor access modes: a claim may ask for less than its
volume has.

Of a volume's spec, Kubernetes lets nobody change the path and the nodes; of a claim's, nothing but
a request that grows. So what is there stays as it is, whatever its group's template says by now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crds.equivalence import normalized_nodes, normalized_path
from crds.naming import claim_name
from crds.quantity import parse_quantity
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
# To delete or recycle a volume would mean the root of all models.
_RETAINED = {"persistentVolumeReclaimPolicy": "Retain"}

# Phases from which a volume does not bind again by itself: it has to be made anew.
_SPENT_PHASES = ("Released", "Failed")


def node_selector_terms(spec: LocalModelNodeGroupSpec) -> tuple[NodeSelectorTerm, ...]:
    """The nodes of a group, whichever form it has; no terms select no node."""
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
    """Whether a group's terms ask for names of nodes, so that its volumes ask for a label."""
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

    claim: what is there of that name; volumes: those that are ours, by name. A volume that KServe
    has named, or we have earlier, keeps its name. Only if it surely is this claim's: a tenant can
    make a claim that names another's volume, but cannot make it bound. by_name: whether the group
    selects so. Then a new volume is not what KServe may have left of that name, which nobody can
    make ask for a label.
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
    # No other claim can have its own one.
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

    found: the claim of that name that is there, perhaps KServe's: it stays as it is, whatever it
    asks for. volume: the name of the volume behind it. limits: its namespace's.
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
    host_path: str,
    found: Object | None = None,
    *,
    name: str,
    adopted: bool = False,
) -> Object:
    """The volume of that name behind that claim.

    host_path: the nodes' directory, for the short form. found: the claim that is there already.
    adopted: whether the volume is there too, and becomes the cache's: it stays as it is.
    """
    spec = _RETAINED if adopted else _new_volume_spec(group, host_path, found)
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


def _new_volume_spec(group: LocalModelNodeGroup, host_path: str, found: Object | None) -> Object:
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
            "local": {"path": host_path},
        }
    if terms := _terms_of(group):
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": terms}}
    if "local" in spec:
        # Read-only: a pod's fsGroup or a stray write would change every tenant's files, and kubelet
        # would make an empty directory for a sub-path that is not there yet. (It refuses to mount a
        # hostPath volume that has mount options.)
        spec.setdefault("mountOptions", ["ro"])
    # They would bind with two classes too; one is what a person expects to see.
    return spec | _RETAINED | {"storageClassName": claim["storageClassName"]}


def without_spent(volumes: Iterable[Object], observed: dict[str, Object]) -> list[Object]:
    """The volumes, but for those that are there and do not bind again by themselves.

    A volume whose claim was deleted is Released and keeps the old claim's uid, which blocks the
    next claim of that name. Left out, Metacontroller deletes it; the next sync makes it anew.
    """
    return [volume for volume in volumes if not _spent(observed.get(volume["metadata"]["name"]))]


def is_outdated(desired: Object, observed: Object) -> bool:
    """Whether a volume was made for other nodes or another path than its group has now."""
    return _location(desired["spec"]) != _location(observed["spec"])


def _location(spec: Object) -> tuple[Any, ...]:
    """Where a volume leads.

    Whether it asks for our label does not count: KServe's volumes, and older ones, do not, and
    stay as they are.
    """
    path = (spec.get("local") or spec.get("hostPath") or {}).get("path")
    return normalized_nodes(spec.get("nodeAffinity"), but=naming.is_member_label), normalized_path(
        path
    )


def unchanged(child: Object) -> Object:
    """A child that is there, asked for as it is."""
    known = ("name", "namespace", "labels")
    return {
        "apiVersion": child["apiVersion"],
        "kind": child["kind"],
        "metadata": {key: child["metadata"][key] for key in known if key in child["metadata"]},
        "spec": child["spec"],
    }


def is_bound(claim: Object | None) -> bool:
    """Whether a claim is bound, and so its volume there."""
    return claim is not None and claim.get("status", {}).get("phase") == "Bound"


def _spent(volume: Object | None) -> bool:
    return volume is not None and volume.get("status", {}).get("phase") in _SPENT_PHASES


def _new_claim_spec(
    cache: Cache, group: LocalModelNodeGroupSpec, volume: str, limits: NamespaceLimits
) -> Object:
    """The group's template with a request that the namespace takes, if there is one.

    The template's own request counts, or the model's size where it has none. Where the namespace
    would refuse the template's, the model's size counts too: a volume is bound to its claim
    whatever that asks for, and no more than the model is what the namespace uses.
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
    """The model's size as it is declared, and no more than its volume has."""
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
    # '' and not absent: the default StorageClass fills an absent one, and the claim would count in
    # the quota of that class.
    claim["storageClassName"] = claim.get("storageClassName") or ""
    return claim


def _terms_of(group: LocalModelNodeGroup) -> list[Object]:
    """The group's terms, as its volumes have them.

    Where Kubernetes asks whether a node may mount a volume, it knows the node's labels and not its
    name: a term with matchFields would hold for every node. So it asks for the label too that such
    a group's nodes get (hooks.nodes).
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
    """Whether the API server takes it: Kubernetes, pkg/apis/core/validation."""
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
