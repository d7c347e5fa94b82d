"""KServe's download Jobs, and the volumes and claims that these Jobs mount. Pure.

An object is kept unless it is certainly KServe's and not in use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crds.base import GROUP
from crds.naming import claim_name
from crds.volume_equivalence import covers
from deploy.kube import meta
from deploy.kube.kinds import CLAIMS, LOCAL_MODEL_NODES, VOLUMES, KubeObject, ref_to
from deploy.takeover import names, objects
from deploy.takeover.steps import Delete, Merge, Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

RECLAIM = "persistentVolumeReclaimPolicy"
# The API server cuts generateName to this length.
GENERATED_FROM = 58
_DOWNLOAD = "-download"


def is_download(job: KubeObject) -> bool:
    """Whether a Job of the job namespace is a download of KServe's agent.

    Such a Job belongs to the LocalModelNode that its label names, is named after model and node,
    and mounts the model's claim under KServe's name.
    """
    owner = meta.controller_of(job) or {}
    label = meta.labels(job)
    model, node = label.get(names.JOB_MODEL_LABEL), label.get(names.JOB_NODE_LABEL)
    if not model or not node:
        return False
    pod = job["spec"]["template"]["spec"]
    return (
        owner.get("kind") == LOCAL_MODEL_NODES.name
        and owner["apiVersion"].startswith(f"{GROUP}/")
        and owner["name"] == node
        and job["metadata"]["name"].startswith(f"{model}-{node}"[:GENERATED_FROM])
        and any(
            volume["name"] == names.JOB_VOLUME
            and (volume.get("persistentVolumeClaim") or {})
            .get("claimName", "")
            .startswith(f"{model}-")
            for volume in pod.get("volumes") or ()
        )
    )


@dataclass(frozen=True)
class Downloads:
    """The job namespace, its claims and pods, and the cluster's volumes.

    claims, volumes: by name. pods: without the pods of KServe's download Jobs.
    """

    namespace: str
    claims: dict[str, KubeObject]
    volumes: dict[str, KubeObject]
    pods: Sequence[KubeObject]

    def leftovers(
        self, caches: Iterable[KubeObject], groups: Iterable[KubeObject]
    ) -> tuple[list[Step], list[str]]:
        """Steps that delete download volumes and claims, and a note for each kept volume."""
        steps: list[Step] = []
        kept: list[str] = []
        templates = {
            group["metadata"]["name"]: template
            for group in groups
            if (template := group["spec"].get("persistentVolumeSpec"))
        }
        leads_to = {claim["spec"].get("volumeName", "") for claim in self.claims.values()}
        for pair in _pairs(caches, templates, self.volumes.keys() | leads_to):
            volume, claim = self.volumes.get(pair.volume), self._claim(pair)
            reason = self._keeps_volume(pair, volume) or self._keeps_claim(pair, claim)
            if reason:
                kept.append(f"PersistentVolume {pair.volume} is kept: {reason}")
            else:
                steps += _removal(volume, claim)
        return steps, kept

    def _keeps_volume(self, pair: _Pair, volume: KubeObject | None) -> str:
        """Why a volume has to stay; empty if it can be deleted."""
        if volume is None:
            return ""
        if not _is_of(volume, pair.cache):
            return "it has another owner than the cache"
        if not _holds(pair.template, volume["spec"]):
            return (
                "it is not what its group's template says; delete it yourself if KServe made it "
                "from an earlier template"
            )
        bound_to = volume["spec"].get("claimRef") or {}
        expected = {"namespace": self.namespace, "name": pair.claim}
        if bound_to and not expected.items() <= bound_to.items():
            return f"it is bound to claim {bound_to.get('namespace')}/{bound_to.get('name')}"
        return ""

    def _keeps_claim(self, pair: _Pair, claim: KubeObject | None) -> str:
        """Why a claim, and with it its volume, has to stay; empty if both can be deleted."""
        if claim is None:
            return ""
        where = f"claim {self.namespace}/{pair.claim}"
        if not _is_of(claim, pair.cache):
            return f"{where} has another owner than the cache"
        pod = self._pod_of_claim.get(pair.claim)
        if pod is not None:
            return f"pod {self.namespace}/{pod} mounts {where}"
        services = [
            u for u in objects.services_of(pair.cache) if u.startswith(f"{self.namespace}/")
        ]
        if services:
            return f"service {services[0]} uses {where}"
        return ""

    @cached_property
    def _pod_of_claim(self) -> dict[str, str]:
        """The first pod that mounts each claim and has not ended."""
        found: dict[str, str] = {}
        for pod in self.pods:
            if not objects.has_ended(pod):
                for claim in objects.mounted_claims(pod):
                    found.setdefault(claim, pod["metadata"]["name"])
        return found

    def _claim(self, pair: _Pair) -> KubeObject | None:
        """The claim that is bound to the download volume; a service's claim may have its name."""
        claim = self.claims.get(pair.claim)
        leads = claim is not None and claim["spec"].get("volumeName") == pair.volume
        return claim if leads else None


@dataclass(frozen=True)
class _Pair:
    """A cache and a group, and KServe's names of their download volume and claim."""

    cache: KubeObject
    template: dict[str, Any]
    volume: str
    claim: str


def _pairs(
    caches: Iterable[KubeObject],
    templates: dict[str, dict[str, Any]],
    names_there: Iterable[str],
) -> list[_Pair]:
    """The pairs of a cache and a group whose download volume has one of the names, sorted.

    A cache need not list the group any more: its volume may still exist. The search begins at the
    names, because a cluster has fewer volumes than pairs of a cache and a group.
    """
    order = {
        (cache["metadata"].get("namespace", ""), cache["metadata"]["name"]): (place, cache)
        for place, cache in enumerate(caches)
    }
    group_order = {group: place for place, group in enumerate(templates)}
    namespaces = {namespace for namespace, _ in order if namespace}
    found = []
    for volume in names_there:
        if not volume.endswith(_DOWNLOAD):
            continue
        serving = volume.removesuffix(_DOWNLOAD)
        of_cluster = ((serving, ""),)
        of_namespaces = ((n, s) for n, s in _splits(serving) if s in namespaces)
        for name, namespace in (*of_cluster, *of_namespaces):
            for cache_name, group in _splits(name):
                place, cache = order.get((namespace, cache_name), (0, None))
                if cache is not None and group in templates:
                    claim = volume if namespace else claim_name(cache_name, group)
                    pair = _Pair(cache, templates[group], volume, claim)
                    found.append((place, group_order[group], pair))
    return [pair for *_, pair in sorted(found, key=lambda one: one[:2])]


def _splits(name: str) -> Iterator[tuple[str, str]]:
    """The text before and after each dash: names of caches and groups may have dashes too."""
    for place, character in enumerate(name):
        if character == "-":
            yield name[:place], name[place + 1 :]


def _is_of(obj: KubeObject, cache: KubeObject) -> bool:
    """Whether a volume or claim has no owner but the cache.

    It may have none: KServe sets no owner for a namespace cache, and Metacontroller removes the
    owner reference of other caches.
    """
    return all(owner["uid"] == cache["metadata"]["uid"] for owner in meta.owners(obj))


def _holds(template: dict[str, Any], spec: dict[str, Any]) -> bool:
    """Whether a volume has all fields of a group's template; the reclaim policy may differ."""
    return covers({key: value for key, value in template.items() if key != RECLAIM}, spec)


def _removal(volume: KubeObject | None, claim: KubeObject | None) -> Iterator[Step]:
    """Steps that delete a claim and its volume, if they exist and are not being deleted."""
    if volume is not None and volume["spec"].get(RECLAIM, "Retain") != "Retain":
        ref = ref_to(VOLUMES, volume)
        yield Step(
            Merge(ref, {"spec": {RECLAIM: "Retain"}}),
            f"set the reclaim policy of {ref} to Retain",
            f"with the policy {volume['spec'][RECLAIM]}, its directory could be emptied when its "
            "claim is deleted",
        )
    for kind, obj in ((CLAIMS, claim), (VOLUMES, volume)):
        if obj is not None and not meta.is_deleting(obj):
            ref = ref_to(kind, obj)
            yield Step(
                Delete(ref, obj["metadata"]["uid"]),
                f"delete {ref}",
                "only KServe's download Jobs needed it, and this deletes no file",
            )
