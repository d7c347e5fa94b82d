"""The steps of `localmodel-takeover` and their order, from objects of a cluster."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from deploy.kube import kinds
from deploy.kube.kinds import COMPOSITES, LOCAL_MODEL_NODES, KubeObject, Ref
from deploy.local.layout import CHECKOUT
from deploy.takeover import names, to_kserve, to_localmodel
from deploy.takeover.main import MOST_LOOKS, main
from deploy.takeover.objects import without_finalizers
from deploy.takeover.sentences import first_few
from deploy.takeover.steps import Delete, DropFinalizers, Merge
from deploy.takeover.to_kserve import plan_back
from deploy.takeover.to_localmodel import plan_takeover

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.takeover.steps import Runbook

OURS = "metacontroller.io/compositecontroller-localmodel-caches"
KSERVES, KSERVES_SPACED = names.KSERVE_FINALIZERS
JOBS = names.JOB_NAMESPACE
TEMPLATE = {
    "accessModes": ["ReadWriteOnce"],
    "capacity": {"storage": "1024Mi"},
    "local": {"path": "/models"},
    "nodeAffinity": {
        "required": {"nodeSelectorTerms": [{"matchFields": [{"key": "n", "values": ["a"]}]}]}
    },
}


def _meta(name: str, namespace: str = "", **fields: Any) -> KubeObject:
    spaced = {"namespace": namespace} if namespace else {}
    return {"name": name, "uid": f"uid-{namespace}{name}", **spaced, **fields}


def _crd(plural: str, **metadata: Any) -> KubeObject:
    path = CHECKOUT / f"crds/manifests/serving.kserve.io_{plural}.yaml"
    crd: KubeObject = yaml.safe_load(path.read_text())
    crd["metadata"] |= metadata
    return crd


KEPT: dict[str, Any] = {"annotations": {names.KEEP_ANNOTATION: names.KEEP}}
CRDS = tuple(_crd(kind.plural, **KEPT) for kind in names.SHARED)


def _cache(name: str = "llama", namespace: str = "", **metadata: Any) -> KubeObject:
    return {
        "kind": "LocalModelNamespaceCache" if namespace else "LocalModelCache",
        "metadata": _meta(name, namespace, **metadata),
        "spec": {"nodeGroups": ["gpu"]},
    }


def _group(**spec: Any) -> KubeObject:
    return {
        "kind": "LocalModelNodeGroup",
        "metadata": _meta("gpu"),
        "spec": spec or {"persistentVolumeSpec": TEMPLATE},
    }


def _owner(obj: KubeObject, **fields: Any) -> KubeObject:
    reference = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": obj.get("kind", "LocalModelCache"),
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "controller": True,
    }
    return {"ownerReferences": [reference | fields]}


def _volume(name: str, claim: str, cache: KubeObject | None = None, **spec: Any) -> KubeObject:
    # As the API server stores a volume: with short quantities and with defaults.
    stored = TEMPLATE | {"capacity": {"storage": "1Gi"}, "volumeMode": "Filesystem"}
    bound = {"claimRef": {"namespace": JOBS, "name": claim, "uid": "u"}}
    owner = _owner(cache) if cache else {}
    return {"metadata": _meta(name, **owner), "spec": stored | bound | spec}


def _claim(name: str, volume: str) -> KubeObject:
    return {"metadata": _meta(name, JOBS), "spec": {"volumeName": volume}}


def _pod(name: str, claim: str = "", *, phase: str = "Running", **metadata: Any) -> KubeObject:
    source = {"name": "m", "persistentVolumeClaim": {"claimName": claim}}
    volumes = [source] if claim else [{"name": "m", "emptyDir": {}}]
    return {
        "metadata": _meta(name, JOBS, **metadata),
        "spec": {"volumes": volumes},
        "status": {"phase": phase},
    }


def _job(**changes: Any) -> KubeObject:
    labels = {"model": "llama", "node": "node-1"}
    node = {"kind": "LocalModelNode", "metadata": _meta("node-1")}
    metadata = _meta("llama-node-1x7k2p", JOBS, labels=labels, **_owner(node)) | changes
    volume = {"name": names.JOB_VOLUME, "persistentVolumeClaim": {"claimName": "llama-gpu"}}
    return {"metadata": metadata, "spec": {"template": {"spec": {"volumes": [volume]}}}}


def _seen(**fields: Any) -> to_localmodel.KServeObjects:
    return replace(
        to_localmodel.KServeObjects("kserve", JOBS, crds=CRDS, groups=(_group(),)), **fields
    )


def _doing(plan: Runbook) -> list[str]:
    return [step.what for step in plan.steps]


WEBHOOK = {"metadata": _meta(names.KSERVE_WEBHOOK)}


def _downloads(cache: KubeObject, **fields: Any) -> to_localmodel.KServeObjects:
    """A cache with its download volume and claim."""
    volume = _volume("llama-gpu-download", "llama-gpu", cache)
    seen = _seen(
        caches=(cache,),
        volumes={"llama-gpu-download": volume},
        claims=(_claim("llama-gpu", "llama-gpu-download"),),
    )
    return replace(seen, **fields)


# From KServe to localmodel.


def test_nothing_is_left_to_do_after_a_takeover() -> None:
    done = _cache(finalizers=[OURS])
    plan = plan_takeover(_seen(caches=(done,)))
    assert (plan.first, plan.steps, plan.then) == ((), (), ())


def test_a_cluster_without_kserves_kinds_is_refused() -> None:
    plan = plan_takeover(_seen(crds=()))
    assert "does not know the kind LocalModelCache" in plan.first[0]
    assert not plan.steps


def test_nothing_is_done_while_the_controller_has_replicas() -> None:
    controller: KubeObject = {"metadata": _meta(names.KSERVE_CONTROLLER, "kserve"), "spec": {}}
    plan = plan_takeover(_seen(controller=controller, webhook=WEBHOOK))
    assert "--replicas=0" in plan.first[0]
    assert not plan.steps
    controller["spec"]["replicas"] = 0
    assert plan_takeover(_seen(controller=controller, webhook=WEBHOOK)).steps


def test_objects_of_a_helm_release_are_reported_since_an_upgrade_restores_them() -> None:
    release = {names.HELM_RELEASE: "lm", names.HELM_NAMESPACE: "infra"}
    agent = {"metadata": _meta(names.KSERVE_AGENT, "kserve", annotations=release), "spec": {}}
    plan = plan_takeover(_seen(agent=agent))
    assert "kubectl -n kserve delete daemonset kserve-localmodelnode-agent" in plan.first[0]
    assert "helm -n infra uninstall lm" in plan.first[0]
    crd = _crd("localmodelcaches", annotations=release | KEPT["annotations"])
    (note,) = plan_takeover(_seen(crds=(crd,))).notes
    assert "kubectl -n infra delete secret -l owner=helm,name=lm" in note


def test_pods_that_still_run_are_waited_for_and_ended_ones_are_not() -> None:
    label = {names.KSERVE_POD_LABEL: names.KSERVE_AGENT}
    pods = tuple(_pod(f"p{n}", labels=label, phase=p) for n, p in enumerate(("Running", "Failed")))
    assert len(plan_takeover(_seen(pods=pods)).first) == 1
    assert plan_takeover(_seen(pods=pods[1:])).first == ()


def test_the_order_of_all_steps() -> None:
    cache = _cache(finalizers=[KSERVES, OURS])
    crds = (*CRDS[:3], _crd("localmodelnodes"))
    plan = plan_takeover(_downloads(cache, crds=crds, jobs=(_job(),), webhook=WEBHOOK))
    assert _doing(plan) == [
        f"annotate {Ref(kinds.CRDS, LOCAL_MODEL_NODES.crd)} with helm.sh/resource-policy: keep",
        "delete Job kserve-localmodel-jobs/llama-node-1x7k2p, and wait until its pods are gone",
        "delete PersistentVolumeClaim kserve-localmodel-jobs/llama-gpu",
        "delete PersistentVolume llama-gpu-download",
        "delete ValidatingWebhookConfiguration localmodelcache.serving.kserve.io",
        "remove localmodel.kserve.io/finalizer from LocalModelCache llama",
    ]
    assert plan.then == ()


def test_without_the_policies_the_webhook_and_the_finalizers_stay() -> None:
    cache = _cache(finalizers=[KSERVES, OURS])
    for webhook in (WEBHOOK, None):
        plan = plan_takeover(_downloads(cache, webhook=webhook, guarded=False))
        # The downloads are deleted: no policy has to protect them.
        assert len(plan.steps) == 2
        assert not any(isinstance(step.action, DropFinalizers) for step in plan.steps)
        assert all("Webhook" not in what for what in _doing(plan))
        assert "deploy/overlays/kserve/policies.yaml" in plan.then[0]
    # A cluster without the kind of the policies cannot wait for them.
    plan = plan_takeover(_downloads(cache, webhook=WEBHOOK, guarded=None))
    assert "from LocalModelCache llama" in _doing(plan)[-1]
    assert "no ValidatingAdmissionPolicies" in plan.notes[0]


def test_kserves_finalizer_stays_until_metacontrollers_is_on() -> None:
    caches = (_cache(finalizers=[KSERVES]), _cache("own", "team", finalizers=[KSERVES_SPACED]))
    plan = plan_takeover(_seen(caches=caches))
    assert not plan.steps
    assert "LocalModelCache llama, LocalModelNamespaceCache team/own" in plan.then[0]
    assert "install localmodel" in plan.then[1]


def test_the_finalizer_of_a_cache_that_is_being_deleted_is_removed_unless_services_use_it() -> None:
    going: dict[str, Any] = {"finalizers": [KSERVES], "deletionTimestamp": "2026-01-01T00:00:00Z"}
    (step,) = plan_takeover(_seen(caches=(_cache(**going),))).steps
    assert "ends its deletion" in step.why
    going_spaced = _cache("own", "team", **going | {"finalizers": [KSERVES_SPACED]})
    (step,) = plan_takeover(_seen(caches=(going_spaced,))).steps
    assert "own-<group>-team" in step.why
    used = _cache(**going) | {"status": {"inferenceServices": [{"namespace": "a", "name": "b"}]}}
    plan = plan_takeover(_seen(caches=(used,)))
    assert not plan.steps
    assert "(a/b)" in plan.then[0]


def test_kserves_own_crds_mean_that_localmodel_is_to_be_installed() -> None:
    # The CRDs of the smaller of KServe's charts have no properties.
    schemas: list[KubeObject] = [{}, {"properties": {"status": {"properties": {"copies": {}}}}}]
    for schema in schemas:
        crd = {
            "metadata": _meta("localmodelcaches.serving.kserve.io", **KEPT),
            "spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]},
        }
        plan = plan_takeover(_seen(crds=(*CRDS[1:], crd)))
        assert "install localmodel" in plan.then[0]


@pytest.mark.parametrize(
    "change",
    [
        {"ownerReferences": []},
        {"labels": {"model": "llama"}},
        {"labels": {"model": "llama", "node": "node-2"}},
        {"name": "nightly-report"},
        _owner({"kind": "CronJob", "metadata": _meta("node-1")}),
    ],
)
def test_a_job_that_may_not_be_kserves_is_left_alone(change: dict[str, Any]) -> None:
    assert plan_takeover(_seen(jobs=(_job(),))).steps
    assert plan_takeover(_seen(jobs=(_job(**change),))).steps == ()


def test_a_job_of_a_long_name_is_known_by_its_beginning() -> None:
    model = "m" * 60
    labels = {"model": model, "node": "node-1"}
    job = _job(name=f"{model[:58]}x7k2p", labels=labels)
    (volume,) = job["spec"]["template"]["spec"]["volumes"]
    volume["persistentVolumeClaim"]["claimName"] = f"{model}-gpu"
    assert len(plan_takeover(_seen(jobs=(job,))).steps) == 1


def test_a_jobs_own_pods_keep_no_claim_and_others_do() -> None:
    cache, job = _cache(finalizers=[OURS]), _job()
    own = _pod("own", "llama-gpu", **_owner(job | {"kind": "Job"}))
    assert len(plan_takeover(_downloads(cache, jobs=(job,), job_pods=(own,))).steps) == 3
    for pods in ((_pod("p", "llama-gpu"),), (_pod("p", "llama-gpu", phase="Pending"), own)):
        plan = plan_takeover(_downloads(cache, jobs=(job,), job_pods=pods))
        assert len(plan.steps) == 1
        assert "is kept: pod kserve-localmodel-jobs/p mounts" in plan.notes[0]
    ended = (_pod("p", "llama-gpu", phase="Succeeded"), _pod("q", "another"))
    assert len(plan_takeover(_downloads(cache, job_pods=ended)).steps) == 2


def test_a_service_of_the_job_namespace_keeps_the_claim() -> None:
    status = {"llmInferenceServices": [{"namespace": JOBS, "name": "chat"}]}
    plan = plan_takeover(_downloads(_cache(finalizers=[OURS]) | {"status": status}))
    assert plan.steps == ()
    assert "service kserve-localmodel-jobs/chat uses" in plan.notes[0]


def test_a_download_volume_without_an_owner_is_deleted() -> None:
    # Metacontroller removes its owner reference from objects without its labels.
    cache = _cache(finalizers=[OURS])
    volume = _volume("llama-gpu-download", "llama-gpu")
    plan = plan_takeover(_downloads(cache, volumes={"llama-gpu-download": volume}))
    assert len(plan.steps) == 2


@pytest.mark.parametrize(
    "template",
    [
        {"mountOptions": []},
        {"storageClassName": ""},
        {"local": {"path": "/models/", "fsType": ""}},
        {
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [],
                            "matchFields": [{"key": "n", "values": ["a", "a"]}],
                        }
                    ]
                }
            }
        },
        {"accessModes": ["ReadWriteOnce", "ReadWriteOnce"]},
        {"capacity": {"storage": 1073741824}},
    ],
)
def test_a_template_that_is_equivalent_to_the_volume(template: dict[str, Any]) -> None:
    """The API server drops empty fields and duplicates of a template from a volume."""
    cache = _cache(finalizers=[OURS])
    group = _group(persistentVolumeSpec=TEMPLATE | template)
    plan = plan_takeover(_downloads(cache, groups=(group,)))
    assert len(plan.steps) == 2
    assert not plan.notes


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"local": {"path": "/disk"}}, "not what its group's template says"),
        ({"capacity": {"storage": "2Gi"}}, "not what its group's template says"),
        ({"capacity": {"storage": "10e999999"}}, "not what its group's template says"),
        ({"nodeAffinity": None}, "not what its group's template says"),
        ({"claimRef": {"namespace": "team", "name": "llama-gpu"}}, "bound to claim team/llama-gpu"),
    ],
)
def test_a_volume_unlike_its_template_is_kept(change: dict[str, Any], reason: str) -> None:
    cache = _cache(finalizers=[OURS])
    volume = _volume("llama-gpu-download", "llama-gpu", cache, **change)
    plan = plan_takeover(_downloads(cache, volumes={"llama-gpu-download": volume}))
    assert plan.steps == ()
    assert reason in plan.notes[0]


def test_a_volume_with_another_owner_is_kept() -> None:
    cache = _cache(finalizers=[OURS])
    volume = _volume("llama-gpu-download", "llama-gpu", _cache("other"))
    plan = plan_takeover(_downloads(cache, volumes={"llama-gpu-download": volume}))
    assert plan.steps == ()
    assert "has another owner" in plan.notes[0]


def test_a_claim_of_a_service_in_the_job_namespace_is_not_touched() -> None:
    # localmodel's claim for a service in the job namespace is bound to a volume of another name.
    serving = _claim("llama-gpu", f"llama-gpu-{JOBS}")
    plan = plan_takeover(_downloads(_cache(finalizers=[OURS]), claims=(serving,)))
    assert _doing(plan) == ["delete PersistentVolume llama-gpu-download"]


def test_a_volume_that_could_be_emptied_is_retained_first() -> None:
    cache = _cache("own", "team", finalizers=[OURS])
    name = "own-gpu-team-download"
    recycled = _volume(name, name, persistentVolumeReclaimPolicy="Recycle")
    plan = plan_takeover(
        _seen(caches=(cache,), volumes={name: recycled}, claims=(_claim(name, name),))
    )
    actions = [step.action for step in plan.steps]
    assert [type(action) for action in actions] == [Merge, Delete, Delete]
    assert isinstance(actions[0], Merge)
    assert actions[0].change == {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    # A run after an interruption at this step continues.
    kept = _volume(name, name, persistentVolumeReclaimPolicy="Retain")
    plan = plan_takeover(_seen(caches=(cache,), volumes={name: kept}))
    assert _doing(plan) == [f"delete PersistentVolume {name}"]


def test_an_object_that_is_being_deleted_is_not_deleted_again() -> None:
    cache = _cache(finalizers=[OURS])
    seen = _downloads(cache)
    for obj in (*seen.volumes.values(), *seen.claims):
        obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert plan_takeover(seen).steps == ()


def test_a_claim_whose_volume_is_gone_is_deleted() -> None:
    plan = plan_takeover(_downloads(_cache(finalizers=[OURS]), volumes={}))
    assert _doing(plan) == ["delete PersistentVolumeClaim kserve-localmodel-jobs/llama-gpu"]


# Objects that only KServe's controller reconciles.

CONTROLLER: KubeObject = {"metadata": _meta(names.KSERVE_CONTROLLER, "kserve"), "spec": {}}
KERNEL = tuple(Ref(kind, "vllm", "team" if kind.namespaced else "") for kind in names.KERNEL_KINDS)


def _imported(**metadata: Any) -> KubeObject:
    return _cache("shared", "team", **metadata) | {"spec": {"pvcRef": "models"}}


@pytest.mark.parametrize(
    ("alone", "named"),
    [
        ({"caches": (_imported(),)}, "LocalModelNamespaceCache team/shared (pvcRef)"),
        *(({"kernel_caches": (ref,)}, str(ref)) for ref in KERNEL),
    ],
    ids=["pvcRef", *(ref.kind.name for ref in KERNEL)],
)
def test_objects_of_kserves_controller_alone_are_reported_before_it_is_off(
    alone: dict[str, Any], named: str
) -> None:
    on = _seen(controller=CONTROLLER, webhook=WEBHOOK, **alone)
    plan = plan_takeover(on)
    assert not plan.steps
    assert named in plan.first[0]
    assert "kubectl apply --server-side -k deploy/overlays/kserve/beside" in plan.first[0]
    assert "--replicas=0" in plan.first[1]
    # When the controller is off, the objects stay.
    plan = plan_takeover(replace(on, controller=None))
    assert (plan.first, len(plan.steps)) == ((), 1)
    assert named in plan.notes[0]
    assert "left alone" in plan.notes[0]
    # With the policy, the controller keeps running, and its webhook stays.
    pod = _pod("p", labels={names.KSERVE_POD_LABEL: names.KSERVE_CONTROLLER})
    plan = plan_takeover(replace(on, beside=True, pods=(pod,)))
    assert (plan.first, plan.steps, plan.then) == ((), (), ())
    assert f"keeps running for {named}" in plan.notes[0]


def test_without_objects_of_kserves_controller_alone_nothing_is_to_be_decided() -> None:
    plan = plan_takeover(_seen(controller=CONTROLLER, caches=(_cache(finalizers=[OURS]),)))
    assert len(plan.first) == 1
    assert plan_takeover(_seen()).notes == ()


def test_kserves_agent_must_be_deleted_even_if_the_controller_may_run() -> None:
    agent = {"metadata": _meta(names.KSERVE_AGENT, "kserve"), "spec": {}}
    pods = tuple(
        _pod(name, labels={names.KSERVE_POD_LABEL: name})
        for name in (names.KSERVE_AGENT, names.KSERVE_CONTROLLER)
    )
    seen = _seen(controller=CONTROLLER, agent=agent, pods=pods, beside=True)
    first = plan_takeover(seen).first
    assert len(first) == 2
    assert not any(names.KSERVE_CONTROLLER in sentence for sentence in first)


def test_the_policy_beside_kserve_has_no_effect_when_the_controller_is_off() -> None:
    label = {names.KSERVE_POD_LABEL: names.KSERVE_CONTROLLER}
    off = CONTROLLER | {"spec": {"replicas": 0}}
    seen = _seen(controller=off, beside=True, webhook=WEBHOOK, caches=(_imported(),))
    assert "Webhook" in _doing(plan_takeover(seen))[0]
    assert plan_takeover(replace(seen, pods=(_pod("p", labels=label),))).first


@pytest.mark.parametrize("finalizers", [[KSERVES_SPACED], [KSERVES_SPACED, OURS], [OURS]])
@pytest.mark.parametrize("going", [True, False])
def test_a_cache_with_pvc_ref_keeps_its_job_claim_and_finalizer(
    finalizers: list[str], going: bool
) -> None:
    metadata: dict[str, Any] = {"finalizers": finalizers}
    if going:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    cache = _imported(**metadata)
    cache["metadata"]["namespace"] = JOBS
    # In the job namespace, with names like those of a download.
    job = _job(name="shared-import", labels={"model": "shared"}, **_owner(cache))
    volume = "shared-gpu-kserve-localmodel-jobs-download"
    seen = _seen(
        caches=(cache,),
        jobs=(job,),
        claims=(_claim(volume, volume),),
        volumes={volume: _volume(volume, volume)},
    )
    plan = plan_takeover(seen)
    assert (plan.first, plan.steps, plan.then) == ((), (), ())
    waits = [note for note in plan.notes if "waits for KServe's controller" in note]
    assert len(waits) == (KSERVES_SPACED in finalizers)
    for note in waits:
        assert f"kubectl -n {JOBS} delete job shared-import --cascade=foreground" in note


def test_the_way_back_leaves_a_cache_with_pvc_ref_as_it_is() -> None:
    cache = _imported(finalizers=[KSERVES_SPACED, OURS])
    plan = plan_back(to_kserve.LocalmodelObjects(caches=(cache,)))
    assert plan.first == ()
    (step,) = plan.steps
    assert isinstance(step.action, DropFinalizers)
    assert step.action.finalizers == (OURS,)
    assert "team/shared has spec.pvcRef" in plan.notes[0]


# The way back.


def test_the_way_back_waits_for_localmodel_to_be_off() -> None:
    agent = {"metadata": _meta(names.AGENT, names.NAMESPACE)}
    pod = _pod("p", labels={names.AGENT_POD_LABEL: names.AGENT})
    cache = _cache(finalizers=[OURS])
    for seen, text in (
        (
            to_kserve.LocalmodelObjects(controllers=(Ref(COMPOSITES, "localmodel-caches"),)),
            "delete -k metacontroller",
        ),
        (to_kserve.LocalmodelObjects(agent=agent), "delete daemonset localmodel-agent"),
        (
            to_kserve.LocalmodelObjects(pods=(pod,)),
            "wait --for=delete pod -l app.kubernetes.io/name=",
        ),
    ):
        plan = plan_back(replace(seen, caches=(cache,)))
        assert text in plan.first[0]
        assert not plan.steps


def test_the_way_back_removes_localmodels_own_fields_and_objects_only() -> None:
    group = _group() | {
        "metadata": _meta(
            "gpu", finalizers=["metacontroller.io/compositecontroller-localmodel-nodegroups"]
        )
    }
    labels = {
        "nodegroup.serving.kserve.io/gpu": "yes",
        "localmodel.serving.kserve.io/llama": "key",
        "team.localmodel.serving.kserve.io/own": "key",
        "localmodelnodegroup.serving.kserve.io/gpu": "",
        "localmodelnodegroup.serving.kserve.io/by-name": "",
        "kserve/localmodel": "worker",
    }
    node = {"metadata": _meta("node-1", labels=labels)}
    asks = {"matchExpressions": [{"key": "localmodelnodegroup.serving.kserve.io/by-name"}]}
    volume = {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{}, asks]}}}}
    seen = to_kserve.LocalmodelObjects(
        caches=(_cache(finalizers=["example.com/audit", OURS]),),
        groups=(group,),
        placements=({"metadata": _meta("gpu")},),
        nodes=(node,),
        volumes=(volume, {"spec": {}}),
        model_nodes=(node,),
    )
    plan = plan_back(seen)
    assert plan.first == ()
    actions = [step.action for step in plan.steps]
    assert [type(one) for one in actions] == [DropFinalizers, DropFinalizers, Delete, Merge, Merge]
    assert isinstance(actions[0], DropFinalizers)
    assert actions[0].finalizers == (OURS,)
    changes = [one.change["metadata"]["labels"] for one in actions if isinstance(one, Merge)]
    assert changes == [
        {"nodegroup.serving.kserve.io/gpu": None},
        {
            "localmodel.serving.kserve.io/llama": None,
            "team.localmodel.serving.kserve.io/own": None,
            "localmodelnodegroup.serving.kserve.io/gpu": None,
        },
    ]
    # Without this label, no pod with that volume could be scheduled to the node.
    assert "Nodes keep localmodelnodegroup.serving.kserve.io/by-name" in " ".join(plan.notes)
    assert (
        plan_back(to_kserve.LocalmodelObjects(caches=(_cache(),), groups=(_group(),))).steps == ()
    )


def test_the_way_back_is_refused_for_what_kserves_controller_fails_on() -> None:
    short = _cache() | {"spec": {"nodeGroup": "gpu"}}
    plan = plan_back(to_kserve.LocalmodelObjects(caches=(short,)))
    assert "give LocalModelCache llama spec.nodeGroups" in plan.first[0]
    plan = plan_back(to_kserve.LocalmodelObjects(groups=(_group(nodeSelector={"pool": "gpu"}),)))
    assert plan.first == ()
    assert "LocalModelNodeGroup gpu has no spec.persistentVolumeSpec" in plan.notes[0]


# The command.


def test_a_patch_tests_each_finalizer_before_it_removes_it() -> None:
    obj = {"metadata": {"finalizers": ["a", "b", "c"]}}
    assert without_finalizers(obj, ("a", "c")) == [
        {"op": "test", "path": "/metadata/finalizers/2", "value": "c"},
        {"op": "remove", "path": "/metadata/finalizers/2"},
        {"op": "test", "path": "/metadata/finalizers/0", "value": "a"},
        {"op": "remove", "path": "/metadata/finalizers/0"},
    ]
    assert without_finalizers(obj, ("d",)) == []


def test_a_long_list_is_shortened_to_three_and_a_count() -> None:
    assert first_few("abc") == "a, b, c"
    assert first_few("abcde") == "a, b, c and 2 more"


def test_the_crds_are_the_four_that_kserve_has() -> None:
    assert [kind.crd for kind in names.SHARED] == [crd["metadata"]["name"] for crd in CRDS]


def _labelled(*labels: str) -> Runbook:
    node = {"metadata": _meta("n1", labels=dict.fromkeys(labels, "yes"))}
    return plan_back(to_kserve.LocalmodelObjects(nodes=(node,)))


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[Runbook]]:
    """The arguments of a run of the way back, and what its looks find, the first one last."""
    found: list[Runbook] = []
    monkeypatch.setattr("deploy.takeover.main.SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("deploy.takeover.main._decide", lambda *_: found.pop())
    monkeypatch.setattr("deploy.takeover.main.perform", lambda *_, **__: None)
    return [f"--kubeconfig={_nowhere(tmp_path)}", "--back", "--apply"], found


def _nowhere(folder: Path) -> Path:
    """A kubeconfig whose API server does not answer."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "nowhere",
        "clusters": [{"name": "nowhere", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "nobody", "user": {"token": "t"}}],
        "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(config))
    return path


GROUP_LABEL = "localmodelnodegroup.serving.kserve.io/gpu"


def test_what_a_late_call_of_the_hooks_restores_is_removed_again(
    looks: tuple[list[str], list[Runbook]], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, found = looks
    found += [_labelled(), _labelled(GROUP_LABEL), _labelled(GROUP_LABEL)]
    assert main(arguments) == 0
    assert found == []
    said = capsys.readouterr().out
    assert said.count(f"remove the labels {GROUP_LABEL} from Node n1") == 2
    assert "  2. " in said
    assert said.endswith("Nothing is left to do.\n")


def test_the_last_look_may_find_nothing(looks: tuple[list[str], list[Runbook]]) -> None:
    arguments, found = looks
    found += [_labelled(), *[_labelled(GROUP_LABEL)] * MOST_LOOKS]
    assert main(arguments) == 0
    assert found == []


def test_what_is_restored_again_and_again_is_an_error(
    looks: tuple[list[str], list[Runbook]], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, found = looks
    found += [_labelled(GROUP_LABEL)] * 9
    assert main(arguments) == 1
    assert "something restores what is removed" in capsys.readouterr().err


def test_a_missing_kubeconfig_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none"
    assert main([f"--kubeconfig={missing}"]) == 2
    assert str(missing) in capsys.readouterr().err


def test_an_api_server_that_does_not_answer_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _nowhere(tmp_path)
    assert main([f"--kubeconfig={path}", "--context=nowhere"]) == 1
    assert "the API server does not answer" in capsys.readouterr().err
    assert main([f"--kubeconfig={path}", "--context=elsewhere"]) == 2
