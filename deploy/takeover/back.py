"""What is to be done so that KServe's controller can be switched on again. Pure.

Claims, volumes, folders, LocalModelNodes and the CRDs stay: KServe's controller finds them by name,
and its agent keeps each folder that its LocalModelNode lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
from deploy.takeover.steps import Delete, DropFinalizers, Merge, Plan, Step
from deploy.takeover.words import running_pods, some
from hooks.naming import GROUP_LABEL_DOMAIN, is_member_label, is_warm_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Seen:
    """What there is of localmodel, as far as the way back has to do with it.

    controllers: those of Metacontroller with our names. pods: those of our agent.
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


def plan_back(seen: Seen) -> Plan:
    """What a person must do first, or else the steps."""
    first = (*_running(seen), *_without_groups(seen))
    if first:
        return Plan(first=first)
    asked = _asked_labels(seen.volumes)
    steps = (
        *_finalizers(seen),
        *_placements(seen),
        *_labels(
            LOCAL_MODEL_NODES,
            seen.model_nodes,
            _is_group_label,
            "the hooks would take it for one that has lost its fields when they come again",
        ),
        *_labels(
            NODES,
            seen.nodes,
            lambda label: is_warm_label(label) or (is_member_label(label) and label not in asked),
            "nobody will keep up to date what they say of its models and groups",
        ),
    )
    notes = (*_kept_labels(asked), *_short_forms(seen), *_imported(seen), *_next())
    return Plan(steps=steps, notes=notes)


def _running(seen: Seen) -> Iterator[str]:
    if seen.controllers:
        yield (
            f"delete localmodel's controllers ({some(map(str, seen.controllers))}), which would "
            "put back what this command takes away: kubectl delete -k metacontroller"
        )
    if seen.agent is not None:
        ref = Ref(DAEMON_SETS, names.AGENT, names.NAMESPACE)
        yield (
            f"delete localmodel's agents ({ref}): KServe's and they must not look after the same "
            f"folders: kubectl -n {names.NAMESPACE} delete daemonset {names.AGENT}"
        )
    yield from running_pods(seen.pods, names.AGENT_POD_LABEL)


def _without_groups(seen: Seen) -> Iterator[str]:
    for cache in seen.caches:
        if not cache["spec"].get("nodeGroups") and not objects.is_imported(cache):
            yield (
                f"give {_parent(cache)} spec.nodeGroups in place of spec.nodeGroup: KServe's "
                "controller reads the first of them without looking, and fails"
            )


def _short_forms(seen: Seen) -> Iterator[str]:
    short = [
        str(_parent(group))
        for group in seen.groups
        if not group["spec"].get("persistentVolumeSpec")
    ]
    if short:
        yield (
            f"{some(short)} has no spec.persistentVolumeSpec: KServe knows no other form, and "
            "finds no node for it"
        )


def _imported(seen: Seen) -> Iterator[str]:
    imported = [str(_parent(cache)) for cache in seen.caches if objects.is_imported(cache)]
    if imported:
        yield (
            f"{some(imported)} has spec.pvcRef: a KServe that does not know that field drops it, "
            "and fails on a cache without nodeGroups"
        )


def _parent(obj: KubeObject) -> Ref:
    kinds = {kind.name: kind for kind in (CACHES, NAMESPACE_CACHES, GROUPS)}
    return ref_to(kinds[obj["kind"]], obj)


def _finalizers(seen: Seen) -> Iterator[Step]:
    for obj in (*seen.caches, *seen.groups):
        ours = tuple(name for name in objects.finalizers(obj) if name in names.FINALIZERS)
        if ours:
            ref = _parent(obj)
            yield Step(
                DropFinalizers(ref, ours),
                f"take {' and '.join(ours)} off {ref}",
                "it is being deleted, and goes then, with the claims and volumes that it owns; "
                "KServe's agents keep its folder while a LocalModelNode lists it"
                if objects.is_going(obj)
                else "without Metacontroller its deletion would never end",
            )


def _placements(seen: Seen) -> Iterator[Step]:
    for placement in seen.placements:
        ref = ref_to(PLACEMENTS, placement)
        yield Step(
            Delete(ref, placement["metadata"]["uid"]),
            f"delete {ref}",
            "only localmodel's hooks read it, and one that is out of date would count when they "
            "come again",
        )


def _is_group_label(label: str) -> bool:
    return label.startswith(f"{GROUP_LABEL_DOMAIN}/")


def _asked_labels(volumes: tuple[KubeObject, ...]) -> set[str]:
    """The labels of groups that a volume asks of its nodes: no pod could come to them without."""
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
            f"Nodes keep {some(sorted(asked))}: volumes ask for it. To let a pod with such a "
            "volume come to a Node that joins its group later, label that Node too"
        )


def _labels(
    kind: Kind, found: tuple[KubeObject, ...], is_ours: Callable[[str], bool], why: str
) -> Iterator[Step]:
    for obj in found:
        ours = [label for label in objects.labels_of(obj) if is_ours(label)]
        if ours:
            ref = ref_to(kind, obj)
            yield Step(
                Merge(ref, {"metadata": {"labels": dict.fromkeys(ours)}}),
                f"take the labels {some(ours)} off {ref}",
                why,
            )


def _next() -> Iterator[str]:
    yield (
        "when nothing is left to do, delete what is left of localmodel, and switch KServe's "
        "controller and agent on again (docs/kserve.md, The way back, from step 5)"
    )
