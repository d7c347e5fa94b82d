"""Which workloads use a cache, and whose claims their pods mount."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import Raw

from crds.cache import CacheStatus
from hooks.naming import workload_label
from hooks.object_size import WORKLOADS_MAX
from hooks.settings import WORKLOAD_KINDS_VARIABLE, Settings, WatchedKind
from hooks.users import User, Users
from hooks.workloads import workload_rules, workloads_of
from tests.unit.hooks.stored import cache_in_two_groups

if TYPE_CHECKING:
    from hooks.observed import Cache

SETTINGS = {
    WORKLOAD_KINDS_VARIABLE: "Deployment.apps/v1, Job.batch/v1,CronJob.batch/v1,"
    "LeaderWorkerSet.leaderworkerset.x-k8s.io/v1"
}
KINDS = Settings.from_environment(SETTINGS).workload_kinds
KEYS = {kind.kind: f"{kind.kind}.{kind.api_version}" for kind in KINDS}
OWN_CACHES = "LocalModelNamespaceCache.serving.kserve.io/v1alpha1"
GROUP = "serving.kserve.io/nodegroup"


def _raw(obj: object) -> Raw:
    return Raw(json.dumps(obj).encode())


def _workload(metadata: dict[str, Any] | None = None, **parts: Any) -> Raw:
    names = {"name": "chat", "namespace": "team-a"}
    return _raw({"metadata": names | (metadata or {}), "spec": {}} | parts)


def _users(workload: Raw, kind: str = "Deployment", cache: Cache | None = None) -> tuple[User, ...]:
    related: dict[str, dict[str, Raw]] = {key: {} for key in (*KEYS.values(), OWN_CACHES)}
    related[KEYS[kind]] = {"team-a/chat": workload}
    return workloads_of(cache or cache_in_two_groups(), KINDS, related)


def _template(group: str | None = None) -> dict[str, Any]:
    annotations = {"annotations": {GROUP: group}} if group else {}
    return {"metadata": {"labels": {"app": "chat"}} | annotations, "spec": {"containers": []}}


@pytest.mark.parametrize(
    ("kind", "spec", "groups"),
    [
        ("Deployment", {"template": _template()}, ("gpu",)),
        ("Deployment", {"template": _template("cpu")}, ("cpu",)),
        ("Deployment", {"template": _template("tpu")}, ()),
        ("Deployment", {"template": {"metadata": None, "spec": {}}}, ("gpu",)),
        ("Deployment", {}, ("gpu",)),
        ("Job", {"template": _template("cpu")}, ("cpu",)),
        ("CronJob", {"jobTemplate": {"spec": {"template": _template("cpu")}}}, ("cpu",)),
        ("CronJob", {"jobTemplate": {}}, ("gpu",)),
        ("LeaderWorkerSet", {"leaderWorkerTemplate": {"workerTemplate": _template()}}, ("gpu",)),
        (
            "LeaderWorkerSet",
            {
                "leaderWorkerTemplate": {
                    "leaderTemplate": _template("cpu"),
                    "workerTemplate": _template(),
                }
            },
            ("cpu", "gpu"),
        ),
        # Another controller's kind may have anything there.
        ("LeaderWorkerSet", {"leaderWorkerTemplate": "none"}, ("gpu",)),
        ("LeaderWorkerSet", {"template": {"metadata": {"annotations": 7}}}, ("gpu",)),
    ],
)
def test_the_pod_template_says_which_group(
    kind: str, spec: dict[str, Any], groups: tuple[str, ...]
) -> None:
    (user,) = _users(_workload(spec=spec), kind)
    assert (user.kind, user.namespace, user.name) == (kind, "team-a", "chat")
    assert user.groups == groups


def test_the_workload_says_it_where_its_pods_name_the_claim() -> None:
    own = {"annotations": {GROUP: "cpu"}}
    (user,) = _users(_workload(own, spec={"template": _template()}))
    assert user.groups == ("cpu",)
    (user,) = _users(_workload(own, spec={"template": _template("gpu")}))
    assert user.groups == ("gpu",)
    # The policy that mounts the claim reads the annotations of the pod alone.
    by_label = _template()
    by_label["metadata"]["labels"]["localmodel.serving.kserve.io/model"] = "llama"
    (user,) = _users(_workload(own, spec={"template": by_label}))
    assert user.groups == ("gpu",)


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        ({}, True),
        ({"active": 1, "conditions": []}, True),
        ({"conditions": [{"type": "Suspended", "status": "True"}]}, True),
        ({"conditions": [{"type": "FailureTarget", "status": "True"}]}, True),
        ({"conditions": [{"type": "Complete", "status": "False"}]}, True),
        ({"conditions": [{"type": "Complete", "status": "True"}]}, False),
        ({"conditions": [{"type": "Failed", "status": "True"}]}, False),
        ({"completionTime": "2026-11-24T03:50:00Z"}, False),
    ],
)
def test_a_job_counts_until_its_pods_have_ended(status: dict[str, Any], *, counts: bool) -> None:
    assert bool(_users(_workload(status=status), "Job")) is counts
    # The conditions of other kinds have other meanings.
    assert _users(_workload(status=status), "Deployment")


@pytest.mark.parametrize(
    "spec",
    [
        {"sourceModelUri": "s3://a/b", "modelSize": "1Gi", "nodeGroup": "gpu"},
        {"sourceModelUri": "s3://a/b", "modelSize": "1Gi", "pvcRef": "shared"},
        # It cannot be read: the name must not mean another model for that.
        {"nodeGroup": 7},
    ],
)
def test_a_cache_of_the_namespace_comes_before_the_cluster_cache(spec: dict[str, Any]) -> None:
    own = {"metadata": {"name": "llama", "namespace": "team-a"}, "spec": spec}
    related: dict[str, dict[str, Raw]] = {key: {} for key in KEYS.values()}
    related[OWN_CACHES] = {"team-a/llama": _raw(own)}
    related[KEYS["Deployment"]] = {
        "team-a/chat": _workload(),
        "team-b/chat": _workload({"namespace": "team-b"}),
    }
    assert [one.namespace for one in workloads_of(cache_in_two_groups(), KINDS, related)] == [
        "team-b"
    ]


def test_a_cache_of_the_namespace_has_the_workloads_there() -> None:
    assert _users(_workload(), cache=cache_in_two_groups("team-a"))


def test_rules_select_by_a_label_of_the_workload() -> None:
    rules = workload_rules(cache_in_two_groups(), KINDS)
    assert [rule.resource for rule in rules] == [
        *("deployments", "jobs", "cronjobs", "leaderworkersets")
    ]
    selector = {
        "matchExpressions": [
            {"key": "model.localmodel.serving.kserve.io/llama", "operator": "Exists"}
        ]
    }
    assert [rule.label_selector for rule in rules] == [selector] * 4
    assert {rule.namespace for rule in rules} == {None}
    own = workload_rules(cache_in_two_groups("team-a"), KINDS)
    assert [rule.namespace for rule in own] == ["team-a"] * 4
    assert workload_rules(cache_in_two_groups(), ()) == []


def test_a_cache_whose_name_is_no_label_has_no_workloads() -> None:
    cache = cache_in_two_groups(name="m" * 64)
    assert workload_label(cache.metadata.name) is None
    assert workload_rules(cache, KINDS) == []
    assert workloads_of(cache, KINDS, {}) == ()
    assert workload_label("m" * 63) is not None


def test_the_list_of_workloads_is_bounded_and_can_be_stored() -> None:
    users = [User("Deployment", f"team-{number:04}", "n" * 253) for number in range(1500)]
    listed = Users.listed((), users).workloads or ()
    assert len(listed) == WORKLOADS_MAX
    assert [one.namespace for one in listed] == [one.namespace for one in users[:WORKLOADS_MAX]]
    status = CacheStatus(workloads=listed)
    assert len(json.dumps(status.to_json())) < 400_000


def test_workload_kinds_are_a_setting() -> None:
    assert Settings.from_environment({}).workload_kinds == ()
    assert KINDS[:2] == (WatchedKind("Deployment", "apps/v1"), WatchedKind("Job", "batch/v1"))
    assert KINDS[-1].resource == "leaderworkersets"
    assert Settings.from_environment(SETTINGS).claims_follow_users
    assert not Settings().claims_follow_users


@pytest.mark.parametrize(
    "text",
    [
        "Deployment",
        "Deployment.apps",
        "Deployment.batch/v1",
        "Pod.v1",
        "Rollout.argoproj.io/v1alpha1",
        "Deployment.apps/v1,Deployment.apps/v1beta1",
    ],
)
def test_workload_kinds_that_are_unknown_are_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError, match=WORKLOAD_KINDS_VARIABLE):
        Settings.from_environment({WORKLOAD_KINDS_VARIABLE: text})
