"""The steps after which localmodel's programs can be deleted, with or without the models. Pure.

The steps need neither Metacontroller nor the hooks: they delete the controllers first, so that
nobody restores what the steps change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.kube import meta
from deploy.kube.kinds import (
    CACHES,
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
from deploy.takeover.sentences import first_few
from deploy.takeover.steps import Delete, DropFinalizers, Empty, Merge, Runbook, Step
from hooks.naming import is_member_label, is_warm_label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.takeover.to_kserve import LocalmodelObjects

PART_OF = "app.kubernetes.io/part-of=localmodel"
_CLUSTER_KINDS = (
    "clusterroles,clusterrolebindings,priorityclasses,validatingadmissionpolicies,"
    "validatingadmissionpolicybindings"
)


def plan_uninstall(observed: LocalmodelObjects, namespace: str, *, remove: bool) -> Runbook:
    """The steps; if a person must do something before, that instead of steps.

    namespace: of localmodel's programs. remove: whether the models are removed from the nodes, with
    all of localmodel's objects; otherwise the models, the objects and the claims stay.
    """
    first = tuple(_users(observed)) if remove else ()
    if first:
        return Runbook(first=first)
    steps = [*_controllers(observed)]
    if remove:
        steps += [*_models(observed), *_objects(observed), *_labels(observed)]
    else:
        steps += _finalizers(observed)
    notes = (*_imported(observed), *_next(observed, namespace, remove=remove))
    return Runbook(steps=tuple(steps), notes=notes)


def _users(observed: LocalmodelObjects) -> Iterator[str]:
    """Who uses models, which the removal would take from them."""
    for cache in _own_caches(observed):
        if services := objects.services_of(cache):
            yield (
                f"delete the services that use {_ref(cache)} ({first_few(services)}), or let them "
                "use another model"
            )
    for node in observed.model_nodes:
        if used := [_name(model) for model in _models_of(node) if model.get("pods")]:
            name = node["metadata"]["name"]
            yield (
                f"delete the pods on the node {name} that use {first_few(used)}: an agent never "
                "deletes a copy that a pod mounts"
            )


def _controllers(observed: LocalmodelObjects) -> Iterator[Step]:
    for ref in observed.controllers:
        yield Step(
            Delete(ref),
            f"delete {ref}",
            "Metacontroller would restore what the next steps change; it keeps running for the "
            "controllers of other programs",
        )


def _finalizers(observed: LocalmodelObjects) -> Iterator[Step]:
    for obj in (*_own_caches(observed), *observed.groups):
        yield from _without_finalizers(
            obj,
            "it is being deleted; this step ends its deletion"
            if meta.is_deleting(obj)
            else "without Metacontroller its deletion would never end; the object stays",
        )


def _without_finalizers(obj: KubeObject, why: str) -> Iterator[Step]:
    ours = tuple(name for name in meta.finalizers(obj) if name in names.FINALIZERS)
    if ours:
        ref = _ref(obj)
        yield Step(DropFinalizers(ref, ours), f"remove {' and '.join(ours)} from {ref}", why)


def _models(observed: LocalmodelObjects) -> Iterator[Step]:
    nodes = [node for node in observed.model_nodes if _keeps(node)]
    if nodes:
        listed = first_few(node["metadata"]["name"] for node in nodes)
        yield Step(
            Empty(),
            f"take all models off the LocalModelNodes ({listed}), and wait until they report none",
            "the agents delete the models, once their grace period has passed",
        )


def _objects(observed: LocalmodelObjects) -> Iterator[Step]:
    for obj in (*_own_caches(observed), *observed.groups):
        yield from _without_finalizers(obj, "its deletion must not wait for Metacontroller")
        yield _deletion(_ref(obj), obj, "Kubernetes deletes its claims and volumes with it")
    for kind, found in (
        (PLACEMENTS, observed.placements),
        (LOCAL_MODEL_NODES, observed.model_nodes),
    ):
        for obj in found:
            yield _deletion(ref_to(kind, obj), obj, "nobody keeps it up to date any more")


def _deletion(ref: Ref, obj: KubeObject, why: str) -> Step:
    return Step(Delete(ref, obj["metadata"]["uid"]), f"delete {ref}", why)


def _labels(observed: LocalmodelObjects) -> Iterator[Step]:
    for node in observed.nodes:
        ours = [one for one in meta.labels(node) if is_warm_label(one) or is_member_label(one)]
        if ours:
            ref = ref_to(NODES, node)
            yield Step(
                Merge(ref, {"metadata": {"labels": dict.fromkeys(ours)}}),
                f"remove the labels {first_few(ours)} from {ref}",
                "the node has no models any more",
            )


def _keeps(node: KubeObject) -> bool:
    return bool(node.get("spec", {}).get("localModels") or _models_of(node))


def _models_of(node: KubeObject) -> list[KubeObject]:
    return (node.get("status") or {}).get("models") or []


def _name(model: KubeObject) -> str:
    return "/".join(filter(None, (model.get("namespace"), model["name"])))


def _own_caches(observed: LocalmodelObjects) -> list[KubeObject]:
    return [cache for cache in observed.caches if not objects.is_imported(cache)]


def _ref(obj: KubeObject) -> Ref:
    kinds: dict[str, Kind] = {kind.name: kind for kind in (CACHES, NAMESPACE_CACHES, GROUPS)}
    return ref_to(kinds[obj["kind"]], obj)


def _imported(observed: LocalmodelObjects) -> Iterator[str]:
    imported = [str(_ref(cache)) for cache in observed.caches if objects.is_imported(cache)]
    if imported:
        yield f"{first_few(imported)} has spec.pvcRef: it is KServe's, and is left alone"


def _next(observed: LocalmodelObjects, namespace: str, *, remove: bool) -> Iterator[str]:
    release = objects.helm_release(observed.agent) if observed.agent else None
    if release is not None:
        where, name = release
        yield f"then delete the programs: helm uninstall {name} --namespace {where}"
    else:
        yield (
            f"then delete the programs: kubectl delete namespace {namespace}; kubectl delete "
            f"{_CLUSTER_KINDS} -l {PART_OF}; kubectl -n {names.JOB_NAMESPACE} delete "
            f"role,rolebinding -l {PART_OF}; and kubectl delete -k deploy/pods --ignore-not-found "
            "if it was applied"
        )
    yield (
        f"the namespace {names.JOB_NAMESPACE} stays, with the secrets that caches name: delete it "
        "if neither you nor KServe need it"
    )
    if remove:
        yield (
            "the CRDs stay; where no KServe uses them: kubectl delete -k crds/manifests. On the "
            "nodes, the directory of the models stays, empty"
        )
    else:
        yield (
            "models, caches, groups, claims and volumes stay, and pods go on using them; a later "
            "install finds all of it, and downloads nothing again. Do not delete the CRDs: that "
            "would delete the caches, with their claims"
        )
