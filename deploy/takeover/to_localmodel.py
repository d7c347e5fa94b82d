"""The steps with which localmodel takes over from KServe. Pure.

The order makes sure that caches in use and folders are protected at each moment:

1. A person switches KServe's controller and agent off, which would undo or delete what follows.
2. KServe's download Jobs end before an agent of localmodel manages the folders that they write.
3. KServe's webhook is deleted after the policies that refuse the same writes are in place, and
   before Metacontroller is installed, whose finalizers the webhook would refuse.
4. KServe's finalizers stay until Metacontroller's are set, so that a finalizer always holds a
   deletion.

Objects that only KServe's controller reconciles stay unchanged, and the controller may keep running
for them: see kserve_only.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploy.kube import meta
from deploy.kube.kinds import (
    CACHES,
    CRDS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    NAMESPACE_CACHES,
    WEBHOOKS,
    KubeObject,
    Ref,
    ref_to,
)
from deploy.takeover import names, objects
from deploy.takeover.downloads import Downloads, is_download
from deploy.takeover.kserve_only import ask_to_decide, explain, list_kserve_only
from deploy.takeover.sentences import first_few, wait_for_pods
from deploy.takeover.steps import Delete, DropFinalizers, Merge, Runbook, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

POLICIES = "kubectl apply --server-side -f deploy/overlays/kserve/policies.yaml"


@dataclass(frozen=True)
class KServeObjects:
    """The objects that decide a takeover.

    controller, agent: KServe's. pods: of KServe's controller and agent. guarded: whether the
    overlay's policies exist; None if the cluster does not know the kind. beside: whether the policy
    exists with which KServe's controller may keep running. job_pods: all pods of the job namespace.
    volumes: by name.
    """

    kserve_namespace: str
    job_namespace: str
    controller: KubeObject | None = None
    agent: KubeObject | None = None
    pods: tuple[KubeObject, ...] = ()
    crds: tuple[KubeObject, ...] = ()
    webhook: KubeObject | None = None
    guarded: bool | None = True
    beside: bool = False
    kernel_caches: tuple[Ref, ...] = ()
    caches: tuple[KubeObject, ...] = ()
    groups: tuple[KubeObject, ...] = ()
    jobs: tuple[KubeObject, ...] = ()
    job_pods: tuple[KubeObject, ...] = ()
    claims: tuple[KubeObject, ...] = ()
    volumes: dict[str, KubeObject] = field(default_factory=dict)


def plan_takeover(observed: KServeObjects) -> Runbook:
    """The steps and what a person does after them; if a person must act before, that alone."""
    first = (*_missing_kinds(observed), *_decision(observed), *_running(observed))
    if first:
        return Runbook(first=first)
    leftovers, kept = _leftovers(observed)
    notes = [
        *explain(_kserve_only(observed), observed.caches, keeps_running=_keeps_running(observed)),
        *kept,
        *_helm_notes(observed),
    ]
    steps = [*_keep_crds(observed), *_end_jobs(observed), *leftovers]
    if observed.guarded is False:
        return Runbook(steps=tuple(steps), then=(_policies_first(),), notes=tuple(notes))
    if observed.guarded is None:
        notes.append(
            "this cluster has no ValidatingAdmissionPolicies (Kubernetes 1.30 or newer has them): "
            "nothing refuses the deletion of a cache that a service uses, nor KServe's CRDs when "
            "its chart puts them back"
        )
    if observed.webhook is not None and not _keeps_running(observed):
        steps.append(_drop_webhook(observed.webhook))
    free, waiting = _finalizers(observed)
    return Runbook(
        steps=(*steps, *free), then=(*waiting, *_install(observed, waiting)), notes=tuple(notes)
    )


def _missing_kinds(observed: KServeObjects) -> Iterator[str]:
    if not any(crd["metadata"]["name"] == CACHES.crd for crd in observed.crds):
        yield (
            "there is nothing to take over: the cluster does not know the kind LocalModelCache. "
            "Install localmodel as its README says, or name the right cluster with --context"
        )


def _kserve_only(observed: KServeObjects) -> list[str]:
    return list_kserve_only(observed.caches, observed.kernel_caches)


def _decision(observed: KServeObjects) -> Iterator[str]:
    if _is_on(observed) and not observed.beside:
        yield from ask_to_decide(_kserve_only(observed))


def _keeps_running(observed: KServeObjects) -> bool:
    """Whether KServe's controller runs, and may, for objects that only it reconciles."""
    return observed.beside and _is_on(observed)


def _is_on(observed: KServeObjects) -> bool:
    return observed.controller is not None and _wants_replicas(observed.controller)


def _running(observed: KServeObjects) -> Iterator[str]:
    """What a person must do while KServe's controller or agent runs, with the commands."""
    space = f"kubectl -n {observed.kserve_namespace}"
    controller = Ref(DEPLOYMENTS, names.KSERVE_CONTROLLER, observed.kserve_namespace)
    agent = Ref(DAEMON_SETS, names.KSERVE_AGENT, observed.kserve_namespace)
    if observed.controller is not None and _is_on(observed) and not observed.beside:
        yield (
            f"switch KServe's controller off ({controller}), which would restore what this "
            f"command removes: {space} scale deployment {controller.name} --replicas=0"
            f"{_made_by_helm(observed.controller)}"
        )
    if observed.agent is not None:
        yield (
            f"delete KServe's agent ({agent}), which deletes each folder that it does not know: "
            f"{space} delete daemonset {agent.name}{_made_by_helm(observed.agent)}"
        )
    keeps_running = _keeps_running(observed)
    pods = [pod for pod in observed.pods if not (keeps_running and _is_of_controller(pod))]
    yield from wait_for_pods(pods, names.KSERVE_POD_LABEL)


def _is_of_controller(pod: KubeObject) -> bool:
    return meta.labels(pod).get(names.KSERVE_POD_LABEL) == names.KSERVE_CONTROLLER


def _wants_replicas(deployment: KubeObject) -> bool:
    # Absent means one.
    return int(deployment["spec"].get("replicas", 1)) > 0


def _made_by_helm(obj: KubeObject) -> str:
    release = objects.helm_release(obj)
    if release is None:
        return ""
    namespace, name = release
    return (
        f" (an upgrade of its Helm release restores it; if the release contains only the chart "
        f"kserve-localmodel-resources, do this instead: helm -n {namespace} uninstall {name})"
    )


def _keep_crds(observed: KServeObjects) -> Iterator[Step]:
    for crd in observed.crds:
        if meta.annotations_of(crd).get(names.KEEP_ANNOTATION) != names.KEEP:
            ref = ref_to(CRDS, crd)
            yield Step(
                Merge(ref, {"metadata": {"annotations": {names.KEEP_ANNOTATION: names.KEEP}}}),
                f"annotate {ref} with {names.KEEP_ANNOTATION}: {names.KEEP}",
                "an upgrade of KServe's chart that leaves the CRD out then does not delete it with "
                "all its objects",
            )


def _end_jobs(observed: KServeObjects) -> Iterator[Step]:
    for job in observed.jobs:
        if is_download(job):
            ref = ref_to(JOBS, job)
            yield Step(
                Delete(ref, job["metadata"]["uid"], wait=True),
                f"delete {ref}, and wait until its pods are gone",
                "it writes to a folder that localmodel's agents will manage",
            )


def _leftovers(observed: KServeObjects) -> tuple[list[Step], list[str]]:
    own = {job["metadata"]["uid"] for job in observed.jobs if is_download(job)}
    others = [
        pod for pod in observed.job_pods if (meta.controller_of(pod) or {}).get("uid") not in own
    ]
    claims = {claim["metadata"]["name"]: claim for claim in observed.claims}
    downloads = Downloads(observed.job_namespace, claims, observed.volumes, others)
    with_groups = [cache for cache in observed.caches if not objects.is_imported(cache)]
    return downloads.leftovers(with_groups, observed.groups)


def _policies_first() -> str:
    return (
        f"apply the policies that refuse what KServe's webhook refuses ({POLICIES}), and run this "
        "again: only then are the webhook and the finalizers removed"
    )


def _drop_webhook(webhook: KubeObject) -> Step:
    ref = ref_to(WEBHOOKS, webhook)
    return Step(
        Delete(ref, webhook["metadata"]["uid"]),
        f"delete {ref}",
        "its server is KServe's controller, which is off, so that it refuses every write to a "
        "LocalModelCache",
    )


def _finalizers(observed: KServeObjects) -> tuple[list[Step], list[str]]:
    """Steps that remove KServe's finalizers, and what must happen before the others are removed.

    A finalizer is removed when the cache has one of Metacontroller's, or is being deleted unused.
    """
    steps: list[Step] = []
    waiting: list[Ref] = []
    blocked: list[str] = []
    for cache in observed.caches:
        if objects.is_imported(cache):
            continue
        found = meta.finalizers(cache)
        theirs = tuple(name for name in found if name in names.KSERVE_FINALIZERS)
        ref = ref_to(NAMESPACE_CACHES if "namespace" in cache["metadata"] else CACHES, cache)
        users = objects.services_of(cache)
        ours = any(name in names.FINALIZERS for name in found)
        if not theirs:
            continue
        deleting = meta.is_deleting(cache)
        if ours or (deleting and not users):
            steps.append(_drop_finalizer(ref, theirs, deleting=deleting and not ours))
        elif deleting:
            blocked.append(
                f"let the services that use {ref} use another model, or delete them "
                f"({first_few(users)}), and run this again: the cache is being deleted, and their "
                "claims would be deleted with it"
            )
        else:
            waiting.append(ref)
    if waiting:
        blocked.append(
            "wait until localmodel's controllers have set their finalizers on "
            f"{first_few(map(str, waiting))}, and run this again: only then are KServe's removed"
        )
    return steps, blocked


def _drop_finalizer(ref: Ref, theirs: tuple[str, ...], *, deleting: bool) -> Step:
    why = "only KServe's controller would remove it, so the cache could never be deleted"
    if deleting:
        why = (
            "it is being deleted; this step ends its deletion, with the claims and volumes it owns"
        )
        if ref.namespace:
            why += f" (it does not own its volumes {ref.name}-<group>-{ref.namespace}: delete them)"
    return Step(DropFinalizers(ref, theirs), f"remove {' and '.join(theirs)} from {ref}", why)


def _install(observed: KServeObjects, waiting: list[str]) -> Iterator[str]:
    """A request to install localmodel, if its CRDs or its finalizers of some caches are missing."""
    if not waiting and all(map(_is_ours, observed.crds)):
        return
    yield (
        "install localmodel if that is not done (docs/kserve.md, step 5 of the takeover): "
        "kubectl apply --server-side --force-conflicts -k crds/manifests; kubectl apply "
        "--server-side -k deploy/overlays/kserve; kubectl apply --server-side -k metacontroller; "
        "then run this again"
    )


def _is_ours(crd: KubeObject) -> bool:
    """Whether a CRD is localmodel's, by the fields that the hooks check (hooks/lost_fields.py)."""
    return any(
        field in _fields(version, part)
        for version in crd["spec"]["versions"]
        for part, field in (("status", "observedGeneration"), ("spec", "nodeReady"))
    )


def _fields(version: KubeObject, part: str) -> KubeObject:
    """The schemas of the fields in spec or status; empty for CRDs of KServe's smaller charts."""
    schema = version["schema"]["openAPIV3Schema"].get("properties", {})
    found: KubeObject = schema.get(part, {}).get("properties", {})
    return found


def _helm_notes(observed: KServeObjects) -> Iterator[str]:
    releases = {release for crd in observed.crds if (release := objects.helm_release(crd))}
    for namespace, name in sorted(releases):
        yield (
            f"CRDs of this cluster are of the Helm release {namespace}/{name}, whose upgrade "
            "restores KServe's CRDs, and whose uninstall deletes them whatever their annotation "
            "says; the policy localmodel-crds refuses both. If the release contains only the chart "
            f"kserve-localmodel-crd, make Helm forget it: kubectl -n {namespace} delete secret -l "
            f"owner=helm,name={name}"
        )
