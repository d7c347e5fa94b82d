"""`localmodel-takeover` beside what KServe leaves: what it refuses, does, and leaves alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.cluster.connection import connect
from crds.base import API_VERSION
from deploy.kube.client import KubeClient
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    CRDS,
    DAEMON_SETS,
    DEPLOYMENTS,
    JOBS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    PODS,
    POLICY_BINDINGS,
    VOLUMES,
    WEBHOOKS,
    KubeObject,
    Ref,
)
from deploy.local.layout import CHECKOUT
from deploy.takeover.perform import perform
from deploy.takeover.steps import DropFinalizers
from tests.e2e.conftest import METACONTROLLERS
from tests.e2e.kserve import SECONDS, KServeWorld
from tests.e2e.kserve_crds import KSERVE, ours
from tests.e2e.kserve_left import (
    AGENT,
    CONTROLLER,
    FINALIZER,
    JOB_NAMESPACE,
    NAMESPACE_FINALIZER,
    WEBHOOK,
    KServeLeft,
)
from tests.e2e.takeover import A_PERSON_FIRST, NOTHING_LEFT, OK, Takeover

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from deploy.kube.kinds import Kind, KubeObject

# It has nothing to do with how Metacontroller works: one is enough.
pytestmark = pytest.mark.parametrize("kserve", METACONTROLLERS[-1:], indirect=True, scope="session")

OTHERS = "example.com/audit"
OURS = "metacontroller.io/compositecontroller-localmodel-caches"


@pytest.fixture
def left(kserve: KServeWorld) -> KServeLeft:
    return KServeLeft(kserve.api)


@pytest.fixture
def takeover(kserve: KServeWorld, tmp_path: Path) -> Takeover:
    return Takeover.on(kserve.cluster, tmp_path)


def _add_finalizers(
    kserve: KServeWorld, resource: Kind, name: str, *names: str, namespace: str = ""
) -> None:
    patch = [{"op": "add", "path": "/metadata/finalizers/-", "value": name} for name in names]
    kserve.api.patch(resource, name, patch, namespace)


def _finalizers(kserve: KServeWorld, name: str, namespace: str = "") -> list[str]:
    resource = NAMESPACE_CACHES if namespace else CACHES
    found: KubeObject = kserve.api.get(resource, name, namespace)["metadata"]
    return list(found.get("finalizers", ()))


def _taken(kserve: KServeWorld, name: str, namespace: str = "") -> None:
    """Wait until Metacontroller's finalizer is on a cache."""
    kserve.until(
        lambda: any("metacontroller" in f for f in _finalizers(kserve, name, namespace)),
        "Metacontroller's finalizer",
        SECONDS,
    )


@pytest.fixture
def webhook(kserve: KServeWorld, left: KServeLeft) -> Iterator[KubeObject]:
    yield left.webhook()
    if kserve.find(WEBHOOKS, WEBHOOK):
        kserve.delete(WEBHOOKS, WEBHOOK)


def test_it_refuses_while_kserves_controller_or_agent_is_there(
    kserve: KServeWorld, left: KServeLeft, takeover: Takeover, webhook: KubeObject
) -> None:
    left.program(DEPLOYMENTS, CONTROLLER, replicas=1)
    left.program(DAEMON_SETS, AGENT)
    left.pod("kserve-agent-abcde", "kserve", labels={"control-plane": AGENT})
    try:
        ran = takeover.run("--apply")
        assert ran.code == A_PERSON_FIRST
        assert f"kubectl -n kserve scale deployment {CONTROLLER} --replicas=0" in ran.said, ran.said
        assert f"kubectl -n kserve delete daemonset {AGENT}" in ran.said
        assert f"wait --for=delete pod -l control-plane={AGENT}" in ran.said
        assert kserve.api.get(WEBHOOKS, WEBHOOK)["metadata"]["uid"] == webhook["metadata"]["uid"]
        # A Deployment without replicas is no hindrance, a pod that is left of it is one.
        kserve.api.patch(DEPLOYMENTS, CONTROLLER, {"spec": {"replicas": 0}}, "kserve")
        kserve.delete(DAEMON_SETS, AGENT, "kserve")
        ran = takeover.run("--apply")
        assert ran.code == A_PERSON_FIRST
        assert "scale deployment" not in ran.said
        assert "wait --for=delete pod" in ran.said
        assert kserve.find(WEBHOOKS, WEBHOOK)
    finally:
        kserve.delete(DEPLOYMENTS, CONTROLLER, "kserve")
        if kserve.find(DAEMON_SETS, AGENT, "kserve"):
            kserve.delete(DAEMON_SETS, AGENT, "kserve")
        kserve.delete(PODS, "kserve-agent-abcde", "kserve")
    kserve.until(lambda: takeover.run("--apply").code == OK, "it to go on", SECONDS)
    assert kserve.find(WEBHOOKS, WEBHOOK) is None


def test_it_shows_first_then_does_it_and_then_finds_nothing_to_do(
    kserve: KServeWorld, left: KServeLeft, takeover: Takeover
) -> None:
    kserve.kserve_group("first", "node-1")
    for namespace, finalizer in (("", FINALIZER), ("shown-a", NAMESPACE_FINALIZER)):
        kserve.kserve_cache("shown", "first", namespace=namespace)
        _taken(kserve, "shown", namespace)
        resource = NAMESPACE_CACHES if namespace else CACHES
        _add_finalizers(kserve, resource, "shown", finalizer, OTHERS, namespace=namespace)
    # Finalizers cannot be written any more once it is there.
    left.webhook()

    ran = takeover.run()
    assert ran.code == OK, ran.said
    assert "--apply does it" in ran.said
    assert f"remove {FINALIZER} from LocalModelCache shown:" in ran.said
    assert f"remove {NAMESPACE_FINALIZER} from LocalModelNamespaceCache shown-a/shown:" in ran.said
    assert ran.said.index(f"delete ValidatingWebhookConfiguration {WEBHOOK}") < ran.said.index(
        f"remove {FINALIZER} from"
    )
    assert kserve.find(WEBHOOKS, WEBHOOK)
    assert FINALIZER in _finalizers(kserve, "shown")

    ran = takeover.run("--apply")
    assert ran.code == OK, ran.said
    assert kserve.find(WEBHOOKS, WEBHOOK) is None
    for namespace in ("", "shown-a"):
        found = _finalizers(kserve, "shown", namespace)
        assert OTHERS in found
        assert any("metacontroller" in name for name in found)
        assert not any("kserve.io" in name for name in found)
    for plural in KSERVE:
        crd = kserve.api.get(CRDS, ours(plural)["metadata"]["name"])
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"

    for flags in ((), ("--apply",)):
        ran = takeover.run(*flags)
        assert ran.code == OK
        assert NOTHING_LEFT in ran.said
    for namespace in ("", "shown-a"):
        resource = NAMESPACE_CACHES if namespace else CACHES
        kserve.api.patch(resource, "shown", {"metadata": {"finalizers": None}}, namespace)


def test_the_webhook_goes_only_when_the_policies_are_there(
    kserve: KServeWorld, takeover: Takeover, webhook: KubeObject
) -> None:
    name = "localmodel-cache-in-use"
    binding = kserve.api.get(POLICY_BINDINGS, name)
    kserve.delete(POLICY_BINDINGS, name)
    try:
        ran = takeover.run("--apply")
        assert ran.code == A_PERSON_FIRST
        assert "-f deploy/overlays/kserve/policies.yaml" in ran.said
        assert kserve.api.get(WEBHOOKS, WEBHOOK)["metadata"]["uid"] == webhook["metadata"]["uid"]
    finally:
        spec = {key: binding[key] for key in ("apiVersion", "kind", "spec")}
        kserve.make(spec | {"metadata": {"name": name}})
    assert takeover.run("--apply").code == OK
    assert kserve.find(WEBHOOKS, WEBHOOK) is None


def test_a_finalizer_stays_until_metacontrollers_is_on(
    kserve: KServeWorld, takeover: Takeover
) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.cluster.stop("metacontroller")
    try:
        kserve.kserve_cache("early", "first")
        kserve.patch(CACHES, "early", {"metadata": {"finalizers": [FINALIZER]}})
        ran = takeover.run("--apply")
        assert ran.code == A_PERSON_FIRST
        assert "set their finalizers on LocalModelCache early" in ran.said
        assert _finalizers(kserve, "early") == [FINALIZER]
        # Nobody has begun with one that is being deleted already: it goes.
        kserve.kserve_cache("gone", "first")
        kserve.patch(CACHES, "gone", {"metadata": {"finalizers": [FINALIZER]}})
        kserve.delete(CACHES, "gone")
        ran = takeover.run("--apply")
        assert f"remove {FINALIZER} from LocalModelCache gone: it is being deleted; this step" in (
            ran.said
        )
        assert kserve.find(CACHES, "gone") is None
        assert _finalizers(kserve, "early") == [FINALIZER]
    finally:
        kserve.cluster.start("metacontroller")
    _taken(kserve, "early")
    assert takeover.run("--apply").code == OK
    assert _finalizers(kserve, "early") == [OURS]
    kserve.delete(CACHES, "early")
    kserve.until(lambda: not kserve.find(CACHES, "early"), "the cache to go", SECONDS)


class _Interfering(KubeClient):
    """Somebody else adds a finalizer in front, just when the first look is over."""

    def __init__(self, kserve: KServeWorld, kubeconfig: Path) -> None:
        super().__init__(connect(kubeconfig))
        self._kserve = kserve
        self._looks = 0

    def find(self, kind: Kind, name: str, namespace: str = "") -> KubeObject | None:
        found = super().find(kind, name, namespace)
        self._looks += 1
        if found and self._looks == 1:
            names = [OTHERS, *found["metadata"]["finalizers"]]
            self._kserve.patch(CACHES, name, {"metadata": {"finalizers": names}})
        return found


def test_a_finalizer_that_somebody_adds_meanwhile_is_not_lost(kserve: KServeWorld) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache("meanwhile", "first")
    _taken(kserve, "meanwhile")
    _add_finalizers(kserve, CACHES, "meanwhile", FINALIZER)
    api = _Interfering(kserve, kserve.cluster.kubeconfig)
    action = DropFinalizers(Ref(CACHES, "meanwhile"), (FINALIZER,))
    perform(api, action, wait_seconds=1)
    assert sorted(_finalizers(kserve, "meanwhile")) == sorted([OTHERS, OURS])
    kserve.patch(CACHES, "meanwhile", {"metadata": {"finalizers": None}})


def test_download_jobs_end_and_others_jobs_go_on(
    kserve: KServeWorld, left: KServeLeft, takeover: Takeover
) -> None:
    # A LocalModelNode of KServe's making, of a node that is in no group of ours.
    node = left.create(LOCAL_MODEL_NODES, {"metadata": {"name": "node-jobs"}, "spec": {}})
    node |= {"kind": LOCAL_MODEL_NODES.name, "apiVersion": API_VERSION}
    job = left.job("ended", node, "s3://models/ended", "ended-first")
    pod = left.running(job)
    strangers = left.job("ended", node, "s3://models/ended", "ended-first")
    # The same in all but its owner.
    kserve.api.patch(
        JOBS, strangers["metadata"]["name"], {"metadata": {"ownerReferences": None}}, JOB_NAMESPACE
    )
    try:
        ran = takeover.run("--apply")
        assert ran.code == OK, ran.said
        assert f"Job {JOB_NAMESPACE}/{job['metadata']['name']}" in ran.said
        # It was waited for.
        assert kserve.find(JOBS, job["metadata"]["name"], JOB_NAMESPACE) is None
        assert kserve.find(PODS, pod["metadata"]["name"], JOB_NAMESPACE) is None
        assert kserve.find(JOBS, strangers["metadata"]["name"], JOB_NAMESPACE)
    finally:
        kserve.delete(JOBS, strangers["metadata"]["name"], JOB_NAMESPACE)
        kserve.delete(LOCAL_MODEL_NODES, "node-jobs")


def test_a_job_whose_pod_does_not_end_is_told(
    kserve: KServeWorld, left: KServeLeft, takeover: Takeover
) -> None:
    node = left.create(LOCAL_MODEL_NODES, {"metadata": {"name": "node-stuck"}, "spec": {}})
    node |= {"kind": LOCAL_MODEL_NODES.name, "apiVersion": API_VERSION}
    job = left.job("stuck", node, "s3://models/stuck", "stuck-first")
    pod = left.running(job)["metadata"]["name"]
    kserve.api.patch(PODS, pod, {"metadata": {"finalizers": [OTHERS]}}, JOB_NAMESPACE)
    ran = takeover.run("--apply", "--timeout=2")
    assert ran.code == 1
    assert f"Job {JOB_NAMESPACE}/{job['metadata']['name']} is still there after 2 s" in ran.said
    # An interrupted run is run again.
    kserve.api.patch(PODS, pod, {"metadata": {"finalizers": None}}, JOB_NAMESPACE)
    assert takeover.run("--apply").code == OK
    kserve.delete(LOCAL_MODEL_NODES, "node-stuck")


def test_download_volumes_go_and_nothing_else(
    kserve: KServeWorld, left: KServeLeft, takeover: Takeover
) -> None:
    group = kserve.kserve_group("loads", "node-1", persistentVolumeReclaimPolicy="Delete")
    plain = kserve.kserve_cache("loads", "loads")
    spaces = kserve.kserve_cache("loads", "loads", namespace="loads-a")
    used = kserve.kserve_cache("loads-used", "loads")
    strange = kserve.kserve_cache("loads-strange", "loads")
    left.download_volume(plain, group)
    left.download_volume(spaces, group)
    left.download_volume(used, group)
    left.pod("reader", JOB_NAMESPACE, "loads-used-loads")
    elsewhere = group | {
        "spec": group["spec"]
        | {
            "persistentVolumeSpec": group["spec"]["persistentVolumeSpec"]
            | {"local": {"path": "/somebody-elses"}}
        }
    }
    left.download_volume(strange, elsewhere)
    kserve.service("loads-b", "chat", "loads")
    serving = kserve.wait_bound("loads-b", "loads-loads")["metadata"]["uid"]
    for claim in ("loads-loads", "loads-loads-loads-a-download", "loads-used-loads"):
        kserve.wait_bound(JOB_NAMESPACE, claim)

    ran = takeover.run("--apply")
    assert ran.code == OK, ran.said
    assert "set the reclaim policy of PersistentVolume loads-loads-download to Retain" in ran.said
    assert (
        "PersistentVolume loads-used-loads-download is kept: pod kserve-localmodel-jobs/reader"
        in ran.said
    )
    assert (
        "PersistentVolume loads-strange-loads-download is kept: it is not what its group's template"
        in ran.said
    )
    gone = ("loads-loads-download", "loads-loads-loads-a-download")
    kserve.until(
        lambda: not any(kserve.find(VOLUMES, volume) for volume in gone), "them to go", SECONDS
    )
    for claim in ("loads-loads", "loads-loads-loads-a-download"):
        assert kserve.find(CLAIMS, claim, JOB_NAMESPACE) is None
    assert kserve.find(CLAIMS, "loads-used-loads", JOB_NAMESPACE)
    assert kserve.find(VOLUMES, "loads-used-loads-download")
    assert kserve.find(VOLUMES, "loads-strange-loads-download")
    assert kserve.wait_bound("loads-b", "loads-loads")["metadata"]["uid"] == serving

    # Nobody mounts it any more.
    kserve.delete(PODS, "reader", JOB_NAMESPACE)
    assert takeover.run("--apply").code == OK
    kserve.until(lambda: not kserve.find(VOLUMES, "loads-used-loads-download"), "it to go", SECONDS)
    kserve.delete(CLAIMS, "loads-strange-loads", JOB_NAMESPACE)
    kserve.delete(VOLUMES, "loads-strange-loads-download")


def test_the_way_back_is_refused_while_localmodel_runs(
    kserve: KServeWorld, takeover: Takeover
) -> None:
    kserve.kserve_group("first", "node-1")
    kserve.kserve_cache("running", "first")
    _taken(kserve, "running")
    ran = takeover.run("--back", "--apply")
    assert ran.code == A_PERSON_FIRST
    assert "kubectl delete -k metacontroller" in ran.said
    assert _finalizers(kserve, "running") == [OURS]


def test_the_shipped_manifests_of_its_job_are_taken(kserve: KServeWorld) -> None:
    folder = CHECKOUT / "deploy/overlays/kserve/takeover"
    done = kserve.cluster.kubectl("apply", "--dry-run=server", "-k", str(folder))
    assert done.returncode == 0, done.stderr
    assert "job.batch/localmodel-takeover" in done.stdout
