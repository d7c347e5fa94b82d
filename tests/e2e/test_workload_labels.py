"""Workloads whose pods ask for models get labels by a policy of deploy/pods: on a real API server.

The labels let a cache find who uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from deploy.kube.errors import ApiError
from deploy.kube.kinds import DEPLOYMENTS, JOBS, Kind, KubeObject
from tests.e2e.world import an_object

if TYPE_CHECKING:
    from tests.e2e.world import World

pytestmark = pytest.mark.xdist_group("policies")

MODEL = "localmodel.serving.kserve.io/model"
MODELS = "localmodel.serving.kserve.io/models"
PREFIX = "model.localmodel.serving.kserve.io/"
SPACE = "workloads"
LEADER_WORKER_SETS = Kind(
    "leaderworkerset.x-k8s.io/v1", "leaderworkersets", "LeaderWorkerSet", namespaced=True
)
STATEFUL_SETS = Kind("apps/v1", "statefulsets", "StatefulSet", namespaced=True)


@pytest.fixture(scope="module")
def workloads(policies: World) -> World:
    """The cluster with a namespace, and with the kind LeaderWorkerSet, without its controller."""
    policies.namespace(SPACE)
    policies.make(_leader_worker_sets())
    policies.until(lambda: policies.api.serves(LEADER_WORKER_SETS), "the kind LeaderWorkerSet")
    made = an_object(LEADER_WORKER_SETS, "first", SPACE, spec=_specs()[LEADER_WORKER_SETS])

    def known() -> bool:
        # The API server refuses what a policy matches for up to 5 s: "There can be a delay between
        # when CustomResourceDefinitions are created and when they are available".
        try:
            return _models(policies.api.create(made, dry_run=True)) == {"llama"}
        except ApiError as error:
            if error.status != 503:
                raise
            return False

    policies.until(known, "the policy to know LeaderWorkerSets")
    return policies


def _leader_worker_sets() -> KubeObject:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    kind = LEADER_WORKER_SETS
    names = {"kind": kind.name, "listKind": f"{kind.name}List", "plural": kind.plural}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": kind.crd,
            # The API server wants to know who approved a kind of this domain.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": names | {"singular": "leaderworkerset"},
            "versions": [version],
        },
    }


def _template(label: str | None, models: str | None = None, **spec: Any) -> KubeObject:
    labels = {"app": "w"} | ({} if label is None else {MODEL: label})
    annotations = {} if models is None else {MODELS: models}
    return {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"containers": [{"name": "c", "image": "none"}]} | spec,
    }


def _deployment(name: str, template: KubeObject, **labels: str) -> KubeObject:
    made = an_object(
        DEPLOYMENTS,
        name,
        SPACE,
        spec={"replicas": 0, "selector": {"matchLabels": {"app": "w"}}, "template": template},
    )
    made["metadata"]["labels"] = labels
    return made


def _models(obj: KubeObject, *, by: str = "template") -> set[str]:
    """The models that a workload's labels with one value name."""
    labels = obj["metadata"].get("labels", {})
    return {
        key.removeprefix(PREFIX)
        for key, value in labels.items()
        if key.startswith(PREFIX) and value == by
    }


def _specs() -> dict[Kind, KubeObject]:
    """A spec of each kind whose pods ask for llama."""
    template = _template("llama")
    selector = {"matchLabels": {"app": "w"}}
    job = {"template": _template("llama", restartPolicy="Never")}
    return {
        DEPLOYMENTS: {"selector": selector, "template": template},
        STATEFUL_SETS: {
            "selector": selector,
            "template": template,
        },
        Kind("apps/v1", "daemonsets", "DaemonSet", namespaced=True): {
            "selector": selector,
            "template": template,
        },
        JOBS: job,
        Kind("batch/v1", "cronjobs", "CronJob", namespaced=True): {
            "schedule": "* * * * *",
            "jobTemplate": {"spec": job},
        },
        LEADER_WORKER_SETS: {"leaderWorkerTemplate": {"workerTemplate": template}},
    }


@pytest.mark.parametrize("kind", _specs(), ids=lambda kind: kind.name)
def test_each_kind_is_labelled(workloads: World, kind: Kind) -> None:
    made = an_object(kind, "each", SPACE, spec=_specs()[kind])
    assert _models(workloads.api.create(made, dry_run=True)) == {"llama"}


def test_leader_and_workers_of_a_leader_worker_set(workloads: World) -> None:
    templates = {
        "leaderTemplate": _template("llama_adapter-a"),
        "workerTemplate": _template("llama", "qwen"),
    }
    spec = {"leaderWorkerTemplate": templates}
    made = an_object(LEADER_WORKER_SETS, "both", SPACE, spec=spec)
    assert _models(workloads.api.create(made, dry_run=True)) == {"llama", "adapter-a", "qwen"}
    del templates["workerTemplate"]["metadata"]
    assert _models(workloads.api.create(made, dry_run=True)) == {"llama", "adapter-a"}


def test_the_stateful_set_of_a_leader_worker_set_is_labelled(workloads: World) -> None:
    made = an_object(STATEFUL_SETS, "of-lws", SPACE, spec=_specs()[STATEFUL_SETS])
    made["metadata"]["ownerReferences"] = [
        {
            "apiVersion": LEADER_WORKER_SETS.api_version,
            "kind": LEADER_WORKER_SETS.name,
            "name": "both",
            "uid": "u",
            "controller": True,
        }
    ]
    assert _models(workloads.api.create(made, dry_run=True)) == {"llama"}


def test_labels_follow_the_template(workloads: World) -> None:
    api = workloads.api
    stored = api.create(_deployment("follows", _template("llama", "qwen, adapter-a"), mine="1"))
    assert _models(stored) == {"llama", "qwen", "adapter-a"}
    assert stored["metadata"]["labels"]["mine"] == "1"
    template: KubeObject = {"metadata": {"annotations": {MODELS: "qwen"}, "labels": {MODEL: ""}}}
    stored = api.patch(DEPLOYMENTS, "follows", {"spec": {"template": template}}, SPACE)
    assert _models(stored) == {"qwen"}
    # A client that replaces the object does not know the labels.
    del stored["metadata"]["labels"]
    stored = api.replace(stored)
    assert _models(stored) == {"qwen"}
    template = {"metadata": {"annotations": None, "labels": {MODEL: None}}}
    stored = api.patch(DEPLOYMENTS, "follows", {"spec": {"template": template}}, SPACE)
    assert _models(stored) == set()


def test_labels_that_somebody_set_by_hand_stay(workloads: World) -> None:
    api = workloads.api
    # For pods that name a claim; one that the template asks for too keeps its value.
    by_hand = {f"{PREFIX}mine": "", f"{PREFIX}qwen": ""}
    stored = api.create(_deployment("by-hand", _template("llama_qwen"), **by_hand))
    assert (_models(stored), _models(stored, by="")) == ({"llama"}, {"mine", "qwen"})
    # In the change by which the template stops asking.
    change = {
        "metadata": {"labels": {f"{PREFIX}llama": ""}},
        "spec": {"template": {"metadata": {"labels": {MODEL: None}}}},
    }
    stored = api.patch(DEPLOYMENTS, "by-hand", change, SPACE)
    assert (_models(stored), _models(stored, by="")) == (set(), {"llama", "mine", "qwen"})


def test_a_workload_that_asks_for_nothing_stays_as_it_is(workloads: World) -> None:
    made = workloads.api.create(_deployment("other", _template(None, "llama")), dry_run=True)
    assert "labels" not in made["metadata"]


def test_what_no_label_can_name_is_left_to_the_pods(workloads: World) -> None:
    template = _template("Llama_ok", "a=b," + "c" * 64)
    made = workloads.api.create(_deployment("odd", template), dry_run=True)
    assert _models(made) == {"ok"}


def test_a_job_of_a_cron_job_is_not_listed_beside_it(workloads: World) -> None:
    job = an_object(JOBS, "of-cron", SPACE, spec=_specs()[JOBS])
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "c", "uid": "u"}
    job["metadata"]["ownerReferences"] = [owner]
    assert _models(workloads.api.create(job, dry_run=True)) == set()
