"""What is to be done so that localmodel takes over from KServe: a plan from what is seen. Pure.

The order keeps each thing guarded until the next guard stands:

1. KServe's controller and agent are off (a person): they would undo or delete what follows.
2. Its download Jobs end before an agent of localmodel looks at the folder that they write.
3. Its webhook goes only when the policies refuse what it refused, and before Metacontroller comes,
   whose finalizers it would refuse.
4. Its finalizers stay until Metacontroller's are on, so that no deletion passes both by.

What its controller alone runs is left alone, and the controller may go on for that: see alone.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
from deploy.takeover.alone import left_alone, run_by_kserve_alone, to_decide
from deploy.takeover.downloads import Downloads, is_download
from deploy.takeover.steps import Delete, DropFinalizers, Merge, Plan, Step
from deploy.takeover.words import running_pods, some

if TYPE_CHECKING:
    from collections.abc import Iterator

POLICIES = "kubectl apply --server-side -f deploy/overlays/kserve/policies.yaml"


@dataclass(frozen=True)
class Seen:
    """What there is of KServe, as far as a takeover has to do with it.

    guarded: whether the overlay's policies are there; None where the cluster has no such kind.
    beside: whether the policy is there with which KServe's controller may go on. kernel_caches:
    what it runs that is no model. pods: those of KServe's controller and agent. job_pods: all of
    the job namespace.
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


def plan_takeover(seen: Seen) -> Plan:
    """What a person must do first, or else the steps, and what a person does after them."""
    first = (*_missing_kinds(seen), *_decision(seen), *_running(seen))
    if first:
        return Plan(first=first)
    leftovers, kept = _leftovers(seen)
    notes = [
        *left_alone(_alone(seen), seen.caches, goes_on=_goes_on(seen)),
        *kept,
        *_helm_notes(seen),
    ]
    steps = [*_keep_crds(seen), *_end_jobs(seen), *leftovers]
    if seen.guarded is False:
        return Plan(steps=tuple(steps), then=(_policies_first(),), notes=tuple(notes))
    if seen.guarded is None:
        notes.append(
            "this cluster has no ValidatingAdmissionPolicies (Kubernetes 1.30 or newer has them): "
            "nothing refuses the deletion of a cache that a service uses, nor KServe's CRDs when "
            "its chart puts them back"
        )
    if seen.webhook is not None and not _goes_on(seen):
        steps.append(_drop_webhook(seen.webhook))
    free, waiting = _finalizers(seen)
    return Plan(
        steps=(*steps, *free), then=(*waiting, *_install(seen, waiting)), notes=tuple(notes)
    )


def _missing_kinds(seen: Seen) -> Iterator[str]:
    if not any(crd["metadata"]["name"] == CACHES.crd for crd in seen.crds):
        yield (
            "nothing is here to take over: the cluster does not know the kind LocalModelCache. "
            "Install localmodel as its README says, or name the right cluster with --context"
        )


def _alone(seen: Seen) -> list[str]:
    return run_by_kserve_alone(seen.caches, seen.kernel_caches)


def _decision(seen: Seen) -> Iterator[str]:
    if _is_on(seen) and not seen.beside:
        yield from to_decide(_alone(seen))


def _goes_on(seen: Seen) -> bool:
    """Whether KServe's controller runs, and may: for what is not localmodel's."""
    return seen.beside and _is_on(seen)


def _is_on(seen: Seen) -> bool:
    return seen.controller is not None and _wants_replicas(seen.controller)


def _running(seen: Seen) -> Iterator[str]:
    """What a person does while KServe's controller or agent is there, with the commands."""
    space = f"kubectl -n {seen.kserve_namespace}"
    controller = Ref(DEPLOYMENTS, names.KSERVE_CONTROLLER, seen.kserve_namespace)
    agent = Ref(DAEMON_SETS, names.KSERVE_AGENT, seen.kserve_namespace)
    if seen.controller is not None and _is_on(seen) and not seen.beside:
        yield (
            f"switch KServe's controller off ({controller}), which would put back what this "
            f"command takes away: {space} scale deployment {controller.name} --replicas=0"
            f"{_made_by_helm(seen.controller)}"
        )
    if seen.agent is not None:
        yield (
            f"delete KServe's agent ({agent}), which deletes each folder that it does not know: "
            f"{space} delete daemonset {agent.name}{_made_by_helm(seen.agent)}"
        )
    pods = [pod for pod in seen.pods if not (_goes_on(seen) and _is_of_controller(pod))]
    yield from running_pods(pods, names.KSERVE_POD_LABEL)


def _is_of_controller(pod: KubeObject) -> bool:
    return objects.labels_of(pod).get(names.KSERVE_POD_LABEL) == names.KSERVE_CONTROLLER


def _wants_replicas(deployment: KubeObject) -> bool:
    # Absent means one.
    return int(deployment["spec"].get("replicas", 1)) > 0


def _made_by_helm(obj: KubeObject) -> str:
    release = objects.helm_release(obj)
    if release is None:
        return ""
    namespace, name = release
    return (
        f" (an upgrade of its Helm release brings it back; if the release is of the chart "
        f"kserve-localmodel-resources alone, rather: helm -n {namespace} uninstall {name})"
    )


def _keep_crds(seen: Seen) -> Iterator[Step]:
    for crd in seen.crds:
        if objects.annotations_of(crd).get(names.KEEP_ANNOTATION) != names.KEEP:
            ref = ref_to(CRDS, crd)
            yield Step(
                Merge(ref, {"metadata": {"annotations": {names.KEEP_ANNOTATION: names.KEEP}}}),
                f"annotate {ref} with {names.KEEP_ANNOTATION}: {names.KEEP}",
                "an upgrade of KServe's chart that leaves it out then does not delete it, and "
                "every object with it",
            )


def _end_jobs(seen: Seen) -> Iterator[Step]:
    for job in seen.jobs:
        if is_download(job):
            ref = ref_to(JOBS, job)
            yield Step(
                Delete(ref, job["metadata"]["uid"], wait=True),
                f"delete {ref}, and wait until its pods are gone",
                "KServe's agent made it to write into a folder that localmodel's agents look after",
            )


def _leftovers(seen: Seen) -> tuple[list[Step], list[str]]:
    own = {job["metadata"]["uid"] for job in seen.jobs if is_download(job)}
    others = [pod for pod in seen.job_pods if objects.controller(pod).get("uid") not in own]
    claims = {claim["metadata"]["name"]: claim for claim in seen.claims}
    downloads = Downloads(seen.job_namespace, claims, seen.volumes, others)
    with_groups = [cache for cache in seen.caches if not objects.is_imported(cache)]
    return downloads.leftovers(with_groups, seen.groups)


def _policies_first() -> str:
    return (
        f"put the policies in place that refuse what KServe's webhook refuses ({POLICIES}), and "
        "run this again: only then do the webhook and the finalizers go"
    )


def _drop_webhook(webhook: KubeObject) -> Step:
    ref = ref_to(WEBHOOKS, webhook)
    return Step(
        Delete(ref, webhook["metadata"]["uid"]),
        f"delete {ref}",
        "its server is KServe's controller, which is off, so that it refuses every write to a "
        "LocalModelCache",
    )


def _finalizers(seen: Seen) -> tuple[list[Step], list[str]]:
    """Steps for the caches that are localmodel's, or going; and what the others wait for."""
    steps: list[Step] = []
    waiting: list[Ref] = []
    blocked: list[str] = []
    for cache in seen.caches:
        if objects.is_imported(cache):
            continue
        found = objects.finalizers(cache)
        theirs = tuple(name for name in found if name in names.KSERVE_FINALIZERS)
        ref = ref_to(NAMESPACE_CACHES if "namespace" in cache["metadata"] else CACHES, cache)
        users = objects.users(cache)
        ours = any(name in names.FINALIZERS for name in found)
        if not theirs:
            continue
        if ours or (objects.is_going(cache) and not users):
            steps.append(_drop_finalizer(ref, theirs, going=objects.is_going(cache) and not ours))
        elif objects.is_going(cache):
            blocked.append(
                f"let the services that use {ref} use another model, or delete them "
                f"({some(users)}), and run this again: the cache is being deleted, and their "
                "claims would go with it"
            )
        else:
            waiting.append(ref)
    if waiting:
        blocked.append(
            f"let localmodel's controllers put their finalizers on {some(map(str, waiting))}, "
            "and run this again: only then do KServe's go"
        )
    return steps, blocked


def _drop_finalizer(ref: Ref, theirs: tuple[str, ...], *, going: bool) -> Step:
    why = "only KServe's controller would do it, so that its deletion would never end"
    if going:
        why = "it is being deleted, and goes then, with the claims and volumes that it owns"
        if ref.namespace:
            why += f" (its volumes {ref.name}-<group>-{ref.namespace} it does not: delete them)"
    return Step(DropFinalizers(ref, theirs), f"take {' and '.join(theirs)} off {ref}", why)


def _install(seen: Seen, waiting: list[str]) -> Iterator[str]:
    """That localmodel has to be installed, where it is not or has not seen all caches."""
    if not waiting and all(map(_is_ours, seen.crds)):
        return
    yield (
        "install localmodel where that is not done (docs/kserve.md, step 5 of the takeover): "
        "kubectl apply --server-side --force-conflicts -k crds/manifests; kubectl apply "
        "--server-side -k deploy/overlays/kserve; kubectl apply --server-side -k metacontroller; "
        "then run this again"
    )


def _is_ours(crd: KubeObject) -> bool:
    """Whether a CRDS is localmodel's, by the fields that the hooks look for (hooks/served.py)."""
    return any(
        field in _fields(version, part)
        for version in crd["spec"]["versions"]
        for part, field in (("status", "observedGeneration"), ("spec", "nodeReady"))
    )


def _fields(version: KubeObject, part: str) -> KubeObject:
    """What a version has in spec or status; KServe's smaller charts do not say it."""
    schema = version["schema"]["openAPIV3Schema"].get("properties", {})
    found: KubeObject = schema.get(part, {}).get("properties", {})
    return found


def _helm_notes(seen: Seen) -> Iterator[str]:
    releases = {release for crd in seen.crds if (release := objects.helm_release(crd))}
    for namespace, name in sorted(releases):
        yield (
            f"CRDs here are of the Helm release {namespace}/{name}, whose upgrade puts KServe's "
            "back, and whose uninstall deletes them whatever their annotation says; the policy "
            "localmodel-crds refuses both. If the release is of the chart kserve-localmodel-crd "
            f"alone, make Helm forget it: kubectl -n {namespace} delete secret -l "
            f"owner=helm,name={name}"
        )
