"""The steps after which KServe's controller can be switched on again. Pure.

Claims, volumes, folders, LocalModelNodes and the CRDs stay: KServe's controller finds them by name,
and KServe's agent keeps each folder that its LocalModelNode lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.kube import meta
from deploy.kube.kinds import (
    CACHES,
    DAEMON_SETS,
    GROUPS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    NODES,
    PLACEMENTS,
    Kind,
    KubeObject,
    Ref,
    ref_to,
)
from deploy.takeover import names, objects
from deploy.takeover.sentences import first_few, wait_for_pods
from deploy.takeover.steps import Delete, DropFinalizers, Merge, Runbook, Step
from hooks.naming import GROUP_LABEL_DOMAIN, is_member_label, is_warm_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class LocalmodelObjects:
    """The objects that decide the way back.

    controllers: localmodel's CompositeControllers and DecoratorControllers. agent: the DaemonSet.
    pods: of localmodel's agent.
    """

    controllers: tuple[Ref, ...] = ()
    agent: KubeObject | None = None
    pods: tuple[KubeObject, ...] = ()
    caches: tuple[KubeObject, ...] = ()
    groups: tuple[KubeObject, ...] = ()
    placements: tuple[KubeObject, ...] = ()
    nodes: tuple[KubeObject, ...] = ()
    volumes: tuple[KubeObject, ...] = ()
    model_nodes: tuple[KubeObject, ...] = ()


def plan_back(observed: LocalmodelObjects) -> Runbook:
    """The steps; if a person must do something before, that instead of steps."""
    first = (*_running(observed), *_without_groups(observed))
    if first:
        return Runbook(first=first)
    asked = _asked_labels(observed.volumes)
    steps = (
        *_finalizers(observed),
        *_placements(observed),
        *_labels(
            LOCAL_MODEL_NODES,
            observed.model_nodes,
            _is_group_label,
            "if localmodel is installed again, its hooks would report that this LocalModelNode has "
            "lost its fields",
        ),
        *_labels(
            NODES,
            observed.nodes,
            lambda label: is_warm_label(label) or (is_member_label(label) and label not in asked),
            "nothing keeps these labels of the Node's models and groups up to date any more",
        ),
    )
    notes = (*_kept_labels(asked), *_short_forms(observed), *_imported(observed), *_next())
    return Runbook(steps=steps, notes=notes)


def _running(observed: LocalmodelObjects) -> Iterator[str]:
    if observed.controllers:
        yield (
            f"delete localmodel's controllers ({first_few(map(str, observed.controllers))}), which "
            "would restore what this command removes: kubectl delete -k metacontroller"
        )
    if observed.agent is not None:
        ref = ref_to(DAEMON_SETS, observed.agent)
        yield (
            f"delete localmodel's agents ({ref}), which must not manage the same folders as "
            f"KServe's: kubectl -n {ref.namespace} delete daemonset {ref.name}"
        )
    yield from wait_for_pods(observed.pods, names.AGENT_POD_LABEL)


def _without_groups(observed: LocalmodelObjects) -> Iterator[str]:
    for cache in observed.caches:
        if not cache["spec"].get("nodeGroups") and not objects.is_imported(cache):
            yield (
                f"give {_parent(cache)} spec.nodeGroups in place of spec.nodeGroup: KServe's "
                "controller reads the first node group without a check, and fails"
            )


def _short_forms(observed: LocalmodelObjects) -> Iterator[str]:
    short = [
        str(_parent(group))
        for group in observed.groups
        if not group["spec"].get("persistentVolumeSpec")
    ]
    if short:
        yield (
            f"{first_few(short)} has no spec.persistentVolumeSpec: KServe knows no other form, and "
            "finds no node for such a group"
        )


def _imported(observed: LocalmodelObjects) -> Iterator[str]:
    imported = [str(_parent(cache)) for cache in observed.caches if objects.is_imported(cache)]
    if imported:
        yield (
            f"{first_few(imported)} has spec.pvcRef: a KServe that does not know that field drops "
            "it, and fails on a cache without nodeGroups"
        )


def _parent(obj: KubeObject) -> Ref:
    kinds = {kind.name: kind for kind in (CACHES, NAMESPACE_CACHES, GROUPS)}
    return ref_to(kinds[obj["kind"]], obj)


def _finalizers(observed: LocalmodelObjects) -> Iterator[Step]:
    for obj in (*observed.caches, *observed.groups):
        ours = tuple(name for name in meta.finalizers(obj) if name in names.FINALIZERS)
        if ours:
            ref = _parent(obj)
            yield Step(
                DropFinalizers(ref, ours),
                f"remove {' and '.join(ours)} from {ref}",
                "it is being deleted; this step ends its deletion, which deletes the claims and "
                "volumes that it owns; KServe's agents keep its folder while a LocalModelNode "
                "lists it"
                if meta.is_deleting(obj)
                else "without Metacontroller its deletion would never end",
            )


def _placements(observed: LocalmodelObjects) -> Iterator[Step]:
    for placement in observed.placements:
        ref = ref_to(PLACEMENTS, placement)
        yield Step(
            Delete(ref, placement["metadata"]["uid"]),
            f"delete {ref}",
            "only localmodel's hooks read it; if localmodel is installed again, they would use it "
            "although it is out of date",
        )


def _is_group_label(label: str) -> bool:
    return label.startswith(f"{GROUP_LABEL_DOMAIN}/")


def _asked_labels(volumes: tuple[KubeObject, ...]) -> set[str]:
    """The group labels that volumes require of a node in their node affinity.

    Without such a label on a node, no pod with the volume could be scheduled there.
    """
    affinities = (volume["spec"].get("nodeAffinity") or {} for volume in volumes)
    return {
        one["key"]
        for affinity in affinities
        for term in (affinity.get("required") or {}).get("nodeSelectorTerms") or ()
        for one in term.get("matchExpressions") or ()
        if is_member_label(one["key"])
    }


def _kept_labels(asked: set[str]) -> Iterator[str]:
    if asked:
        yield (
            f"Nodes keep {first_few(sorted(asked))}: volumes require it. For pods with such a "
            "volume to be scheduled to a Node that joins the group later, label that Node too"
        )


def _labels(
    kind: Kind, found: tuple[KubeObject, ...], is_ours: Callable[[str], bool], why: str
) -> Iterator[Step]:
    for obj in found:
        ours = [label for label in meta.labels(obj) if is_ours(label)]
        if ours:
            ref = ref_to(kind, obj)
            yield Step(
                Merge(ref, {"metadata": {"labels": dict.fromkeys(ours)}}),
                f"remove the labels {first_few(ours)} from {ref}",
                why,
            )


def _next() -> Iterator[str]:
    yield (
        "when nothing is left to do, delete what is left of localmodel, and switch KServe's "
        "controller and agent on again (docs/kserve.md, The way back, from step 5)"
    )
