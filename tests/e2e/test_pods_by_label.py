"""Pods that ask for models by a label: the policies of deploy/pods on a real API server.

The cluster has no agents, and its pods are made as dry runs: what counts is the pod that the API
server would store, and whether the claims that it names are bound.
"""

from __future__ import annotations

import os
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from crds.keys import model_key
from deploy.kube.errors import ApiError
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    NAMESPACE_CACHES,
    PLACEMENTS,
    PODS,
    VOLUMES,
    KubeObject,
)
from deploy.local.cluster import Cluster
from deploy.local.layout import CHECKOUT
from deploy.local.origin import S3Origin
from deploy.local.product import HOOKS
from tests.e2e.origin import HttpOrigin
from tests.e2e.world import World, an_object

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("policies")

PREFIX = "localmodel.serving.kserve.io"
MODEL = f"{PREFIX}/model"
MODELS = f"{PREFIX}/models"
GROUP = "serving.kserve.io/nodegroup"
TEAM, OTHER = "pods-team", "pods-other"
SIZES = {"llama": "16Gi", "adapter-a": "1Gi", "adapter-b": "3Gi"}


@pytest.fixture(scope="module")
def pods(policies: World) -> World:
    """The cluster with two groups, two namespaces and some caches."""
    world = policies
    for namespace in (TEAM, OTHER):
        world.namespace(namespace, pods="yes")
    for group in ("gpu", "cpu"):
        world.group(group, storageLimit="100Gi")
    for name, size in SIZES.items():
        _cache(world, name, modelSize=size)
    _cache(world, "both", nodeGroup=None, nodeGroups=["gpu", "cpu"])
    _until_offered(world, "gpu", *SIZES, "both")
    _until_offered(world, "cpu", "both")
    return world


def _cache(world: World, name: str, **spec: Any) -> None:
    fields = {"namespaceSelector": {"matchLabels": {"pods": "yes"}}, "nodeGroup": "gpu"} | spec
    given = {key: value for key, value in fields.items() if value is not None}
    world.make(
        an_object(
            CACHES, name, spec={"sourceModelUri": f"s3://pods/{name}", "modelSize": "1Gi"} | given
        )
    )


def _own_cache(world: World, name: str, group: str, uri: str) -> None:
    spec = {"sourceModelUri": uri, "modelSize": "1Gi", "nodeGroup": group}
    world.make(an_object(NAMESPACE_CACHES, name, TEAM, spec=spec))


def _until_offered(world: World, group: str, *names: str) -> None:
    """Wait until the plan of a group offers these models, and the policy has read it."""

    def offered() -> bool:
        plan = world.find(PLACEMENTS, group) or {"spec": {}}
        return all(name in plan["spec"].get("offers", {}) for name in names)

    world.until(offered, f"{names} to be offered by {group}")
    asked = ",".join(name.rpartition("/")[2] for name in names)
    pod = _pod("", annotations={"models": asked, GROUP: group})
    world.until(lambda: not _refusal(world, pod), f"pods to get {asked} of {group}")


def _pod(label: str | None, *, namespace: str = TEAM, **fields: Any) -> KubeObject:
    """A pod with a label of models. annotations: without our prefix, or with another one."""
    annotations = {
        key if "/" in key else f"{PREFIX}/{key}": value
        for key, value in fields.pop("annotations", {}).items()
    }
    metadata = {"labels": {} if label is None else {MODEL: label}, "annotations": annotations}
    pod = an_object(PODS, "p", namespace)
    pod["metadata"] |= metadata
    pod["spec"] = {"containers": [_container("main")]} | fields
    return pod


def _container(name: str, **fields: Any) -> KubeObject:
    return {"name": name, "image": "none"} | fields


def _made(world: World, pod: KubeObject) -> KubeObject:
    return world.api.create(pod, dry_run=True, strict=True)


def _refusal(world: World, pod: KubeObject) -> str:
    """The message with which the API server refuses a pod; empty if it takes it."""
    try:
        _made(world, pod)
    except ApiError as error:
        return error.message
    return ""


def _ours(listed: list[KubeObject]) -> list[KubeObject]:
    """Volumes, or mounts, without that of the ServiceAccount's token."""
    return [one for one in listed if not one["name"].startswith("kube-api-access-")]


def _mounts(pod: KubeObject, *, init: bool = False) -> dict[str, list[KubeObject]]:
    """The mounts of each container."""
    kind = "initContainers" if init else "containers"
    return {one["name"]: _ours(one.get("volumeMounts", [])) for one in pod["spec"][kind]}


def _mount(name: str, path: str = "/mnt/models", uri: str = "") -> KubeObject:
    """The mount of a model."""
    key = model_key(uri or f"s3://pods/{name}")
    return {
        "name": f"localmodel-{key}",
        "mountPath": path,
        "subPath": f"models/{key}",
        "readOnly": True,
    }


def _volume(name: str, group: str = "gpu", uri: str = "") -> KubeObject:
    """The volume of a model."""
    return {
        "name": _mount(name, uri=uri)["name"],
        "persistentVolumeClaim": {"claimName": f"{name}-{group}", "readOnly": True},
    }


def _prefers(name: str, weight: int = 100, label: str = "", uri: str = "") -> KubeObject:
    """The preference for nodes that have a model."""
    return {"weight": weight, "preference": {"matchExpressions": [_has(name, label, uri)]}}


def _has(name: str, label: str = "", uri: str = "") -> KubeObject:
    key = model_key(uri or f"s3://pods/{name}")
    return {"key": label or f"{PREFIX}/{name}", "operator": "In", "values": [key]}


def _preferences(pod: KubeObject) -> list[KubeObject]:
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    return list(affinity["preferredDuringSchedulingIgnoredDuringExecution"])


# What a pod gets.


@pytest.mark.parametrize("count", [1, 3, 20])
def test_each_container_gets_the_model(pods: World, count: int) -> None:
    names = [f"c{number}" for number in range(count)]
    pod = _made(pods, _pod("llama", containers=[_container(name) for name in names]))
    assert _mounts(pod) == {name: [_mount("llama")] for name in names}
    assert _ours(pod["spec"]["volumes"]) == [_volume("llama")]
    assert _preferences(pod) == [_prefers("llama")]
    assert pod["metadata"]["annotations"] == {f"{PREFIX}/claims": "llama=llama-gpu"}
    claim = pods.wait_bound(TEAM, "llama-gpu")
    volume = pods.find(VOLUMES, claim["spec"]["volumeName"]) or {}
    assert volume["spec"]["local"]["path"]


def test_what_the_user_wrote_stays(pods: World) -> None:
    zone = {"key": "zone", "operator": "In", "values": ["a"]}
    preferred = {"weight": 7, "preference": {"matchExpressions": [zone]}}
    scratch = {"name": "scratch", "mountPath": "/scratch"}
    containers = [_container("main", volumeMounts=[scratch]), _container("second")]
    affinity = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [preferred],
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [zone]}]
            },
        },
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]
        },
    }
    volumes = [{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}]
    annotations = {"example.com/mine": "1"}
    written = _pod(
        "llama",
        containers=containers,
        volumes=volumes,
        affinity=affinity,
        annotations=annotations,
    )
    pod = _made(pods, written)
    assert _mounts(pod) == {"main": [scratch, _mount("llama")], "second": [_mount("llama")]}
    assert _ours(pod["spec"]["volumes"]) == [*volumes, _volume("llama")]
    expected: Any = deepcopy(affinity)
    expected["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = [
        preferred,
        _prefers("llama"),
    ]
    assert pod["spec"]["affinity"] == expected
    assert pod["metadata"]["annotations"]["example.com/mine"] == "1"


def test_an_init_container_gets_it_too(pods: World) -> None:
    pod = _made(pods, _pod("llama", initContainers=[_container("convert")]))
    assert _mounts(pod) == {"main": [_mount("llama")]}
    assert _mounts(pod, init=True) == {"convert": [_mount("llama")]}


@pytest.mark.parametrize("only", ["second", "convert"])
def test_one_container_gets_it_where_an_annotation_names_one(pods: World, only: str) -> None:
    written = _pod(
        "llama",
        containers=[_container("main"), _container("second")],
        initContainers=[_container("convert")],
        annotations={"container": only},
    )
    pod = _made(pods, written)
    having = {name for name, mounts in (_mounts(pod) | _mounts(pod, init=True)).items() if mounts}
    assert having == {only}


def test_another_path(pods: World) -> None:
    for path in ("/models/here", "/models/here/"):
        pod = _made(pods, _pod("llama", annotations={"mount-path": path}))
        assert _mounts(pod) == {"main": [_mount("llama", "/models/here")]}


@pytest.mark.parametrize(
    ("label", "annotation"),
    [
        ("llama_adapter-a_adapter-b", None),
        ("", "llama, adapter-a,adapter-b"),
        ("llama", "llama,adapter-a,adapter-b"),
    ],
)
def test_several_models_have_a_folder_each(pods: World, label: str, annotation: str | None) -> None:
    annotations = {} if annotation is None else {"models": annotation}
    pod = _made(pods, _pod(label, annotations=annotations))
    assert _mounts(pod) == {"main": [_mount(name, f"/mnt/models/{name}") for name in SIZES]}
    assert _ours(pod["spec"]["volumes"]) == [_volume(name) for name in SIZES]
    weights = [term["weight"] for term in _preferences(pod)]
    # The more bytes, the more weight, and the lightest counts too.
    assert weights == [1 + 97 * 16 // 20, 1 + 97 * 1 // 20, 1 + 97 * 3 // 20]
    assert sum(weights) <= 100


def test_warm_nodes_as_an_annotation_asks(pods: World) -> None:
    zone = {"key": "zone", "operator": "In", "values": ["a"]}
    name = {"key": "metadata.name", "operator": "In", "values": ["n"]}
    pod = _made(pods, _pod("llama", annotations={"warm-nodes": "none"}))
    assert "affinity" not in pod["spec"]

    required = {"warm-nodes": "required"}
    pod = _made(pods, _pod("llama_both", annotations=required))
    assert _required(pod) == [{"matchExpressions": [_has("llama"), _has("both")]}]

    terms = [{"matchExpressions": [zone]}, {"matchFields": [name]}]
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
        }
    }
    pod = _made(pods, _pod("llama", annotations=required, affinity=affinity))
    # Terms are alternatives, so each of them has it.
    assert _required(pod) == [
        {"matchExpressions": [zone, _has("llama")]},
        {"matchFields": [name], "matchExpressions": [_has("llama")]},
    ]


def _required(pod: KubeObject) -> list[KubeObject]:
    affinity = pod["spec"]["affinity"]["nodeAffinity"]
    assert affinity.keys() == {"requiredDuringSchedulingIgnoredDuringExecution"}
    required = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    return list(required["nodeSelectorTerms"])


# Which model a name means.


def test_a_cache_in_two_groups(pods: World) -> None:
    pod = _made(pods, _pod("both"))
    assert _ours(pod["spec"]["volumes"]) == [_volume("both", "gpu")]
    pod = _made(pods, _pod("both", annotations={GROUP: "cpu"}))
    assert _ours(pod["spec"]["volumes"]) == [_volume("both", "cpu")]
    refused = _refusal(pods, _pod("both_llama", annotations={GROUP: "cpu"}))
    assert f"there is no model llama for pods of the namespace {TEAM} in the group cpu" in refused


def test_a_cache_of_a_namespace_is_for_its_own_pods(pods: World) -> None:
    uri = "s3://pods/of-a-team"
    _own_cache(pods, "own", "gpu", uri)
    _until_offered(pods, "gpu", f"{TEAM}/own")
    pod = _made(pods, _pod("own"))
    assert _mounts(pod) == {"main": [_mount("own", uri=uri)]}
    assert _ours(pod["spec"]["volumes"]) == [_volume("own", uri=uri)]
    assert _preferences(pod) == [_prefers("own", label=f"{TEAM}.{PREFIX}/own", uri=uri)]
    pods.wait_bound(TEAM, "own-gpu")
    assert "there is no model own" in _refusal(pods, _pod("own", namespace=OTHER))
    # Nor by the name under which the plan has it.
    by_title = _pod("", namespace=OTHER, annotations={"models": f"{TEAM}/own"})
    assert f"there is no model {TEAM}/own" in _refusal(pods, by_title)


@pytest.mark.parametrize("group", ["gpu", "cpu"])
def test_a_cache_of_a_namespace_comes_before_the_clusters(pods: World, group: str) -> None:
    name, uri = f"twice-{group}", f"s3://pods/twice-of-a-team-{group}"
    # Without claims of its own: two caches cannot have a claim of one name.
    _cache(pods, name, namespaceSelector=None)
    _until_offered(pods, "gpu", name)
    _own_cache(pods, name, group, uri)
    _until_offered(pods, group, f"{TEAM}/{name}")
    pods.until(
        lambda: pods.find(PLACEMENTS, "gpu")["spec"]["offers"][name].get("hiddenIn") == [TEAM],  # type: ignore[index]
        "the plan to say what is hidden",
    )
    pod = _made(pods, _pod(name))
    assert _ours(pod["spec"]["volumes"]) == [_volume(name, group, uri)]
    pod = _made(pods, _pod(name, namespace=OTHER))
    assert _ours(pod["spec"]["volumes"]) == [_volume(name)]


def test_a_cache_of_a_namespace_comes_before_one_that_selects_the_namespace(pods: World) -> None:
    uri = "s3://pods/before-of-a-team"
    _own_cache(pods, "before", "gpu", uri)
    _until_offered(pods, "gpu", f"{TEAM}/before")
    _owner_is(pods, "before-gpu", "LocalModelNamespaceCache")
    _cache(pods, "before")
    _until_offered(pods, "gpu", "before")
    pods.wait_bound(OTHER, "before-gpu")
    assert _mounts(_made(pods, _pod("before"))) == {"main": [_mount("before", uri=uri)]}
    assert _mounts(_made(pods, _pod("before", namespace=OTHER))) == {"main": [_mount("before")]}
    _owner_is(pods, "before-gpu", "LocalModelNamespaceCache")


def test_a_claim_that_is_there_keeps_its_owner_until_it_is_deleted(pods: World) -> None:
    uri = "s3://pods/after-of-a-team"
    _cache(pods, "after")
    _until_offered(pods, "gpu", "after")
    _owner_is(pods, "after-gpu", "LocalModelCache")
    _own_cache(pods, "after", "gpu", uri)
    # Its claim leads to the other cache's model.
    pods.until(lambda: "there is no model after" in _refusal(pods, _pod("after")), "no offer")
    pods.delete(CLAIMS, "after-gpu", TEAM)
    pods.until(lambda: not _refusal(pods, _pod("after")), "the offer", seconds=90)
    assert _mounts(_made(pods, _pod("after"))) == {"main": [_mount("after", uri=uri)]}
    _owner_is(pods, "after-gpu", "LocalModelNamespaceCache")


def _owner_is(world: World, claim: str, kind: str) -> None:
    (owner,) = world.wait_bound(TEAM, claim)["metadata"]["ownerReferences"]
    assert owner["kind"] == kind


def test_a_namespaces_cache_that_is_not_admitted_does_not_give_way(pods: World) -> None:
    _cache(pods, "odd")
    _until_offered(pods, "gpu", "odd")
    assert not _refusal(pods, _pod("odd"))
    _own_cache(pods, "odd", "group-of-nobody", "s3://pods/odd-of-a-team")
    pods.until(lambda: "there is no model odd" in _refusal(pods, _pod("odd")), "it to be hidden")
    assert not _refusal(pods, _pod("odd", namespace=OTHER))


def test_names_that_no_label_has_room_for(pods: World) -> None:
    names = ["a" * 63, "b" * 63]
    for name in names:
        _cache(pods, name)
    _until_offered(pods, "gpu", *names)
    pod = _made(pods, _pod("", annotations={"models": ",".join(names)}))
    assert _mounts(pod) == {"main": [_mount(name, f"/mnt/models/{name}") for name in names]}


def test_a_plan_with_a_longer_name_and_one_of_an_older_version(pods: World) -> None:
    # Such caches were stored before the CRD bounded their names; then plans had no offers.
    name, label = "c" * 70, "c" * 54 + "-01234567"
    plan: KubeObject = {
        "models": [{"modelName": name, "sourceModelUri": "s3://pods/c", "modelSize": "1Gi"}],
        "nodeSelectorTerms": [],
        "storageLimit": "0",
    }
    pods.make(an_object(PLACEMENTS, "older", spec=plan))
    written = _pod("", annotations={"models": name})
    try:
        assert f"there is no model {name}" in _refusal(pods, written)
        offer = {"key": model_key("s3://pods/c"), "default": True, "labelName": label}
        pods.make(an_object(PLACEMENTS, "older", spec=plan | {"offers": {name: offer}}))
        pods.until(lambda: not _refusal(pods, written), "the policy to read the plan")
        pod = _made(pods, written)
    finally:
        pods.delete(PLACEMENTS, "older")
    assert _preferences(pod) == [_prefers(name, label=f"{PREFIX}/{label}", uri="s3://pods/c")]
    assert _ours(pod["spec"]["volumes"]) == [_volume(name, "older", "s3://pods/c")]


# What is refused.


def test_an_unknown_model_is_refused_by_name(pods: World) -> None:
    refused = _refusal(pods, _pod("llama_lama"))
    assert f"there is no model lama for pods of the namespace {TEAM}" in refused
    assert f"kubectl get lmc,lmnc -n {TEAM}" in refused
    assert "names no model" in _refusal(pods, _pod(""))


def test_a_model_that_is_not_admitted_is_refused(pods: World) -> None:
    _cache(pods, "too-large", modelSize="1000Gi")
    pods.wait_condition("too-large", "ModelTooLarge")
    assert "there is no model too-large" in _refusal(pods, _pod("too-large"))


def test_annotations_that_make_no_sense_are_refused(pods: World) -> None:
    for annotation, value, why in (
        ("container", "man", "the pod has no container man"),
        ("warm-nodes", "never", "warm-nodes is never: write preferred, required or none"),
        ("mount-path", "models", "mount-path is models: write an absolute path"),
        ("mount-path", "/", "mount-path is /: write an absolute path"),
        ("mount-path", "/a:b", "mount-path is /a:b: write an absolute path"),
    ):
        assert why in _refusal(pods, _pod("llama", annotations={annotation: value}))


@pytest.mark.parametrize("path", ["/mnt/models", "/mnt/models/"])
def test_no_mount_of_the_user_is_replaced(pods: World, path: str) -> None:
    mounted = _container("main", volumeMounts=[{"name": "mine", "mountPath": path}])
    volumes = [{"name": "mine", "emptyDir": {}}]
    fields: dict[str, Any] = {
        "containers": [mounted, _container("second")],
        "volumes": volumes,
    }
    refused = _refusal(pods, _pod("llama", **fields))
    assert "something else is mounted at /mnt/models in the container main" in refused
    pod = _made(pods, _pod("llama", **fields, annotations={"container": "second"}))
    assert [one["name"] for one in _mounts(pod)["main"]] == ["mine"]
    pod = _made(pods, _pod("llama", **fields, annotations={"mount-path": "/models"}))
    assert _mounts(pod)["main"][1] == _mount("llama", "/models")


# Pods that have the model already.


def test_a_pod_that_is_made_from_a_stored_one_stays_as_it_is(pods: World) -> None:
    written = _pod("llama_adapter-a", initContainers=[_container("convert")])
    stored = pods.api.create(written)
    try:
        again = deepcopy(stored)
        del again["status"]
        for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"):
            again["metadata"].pop(field, None)
        again["metadata"]["name"] = "p2"
        assert _made(pods, again)["spec"] == stored["spec"]
    finally:
        pods.api.delete(PODS, "p", TEAM, grace_seconds=0)


def test_a_pod_that_names_the_claim_itself_gets_no_second_volume(pods: World) -> None:
    mine = {"name": "mine", "persistentVolumeClaim": {"claimName": "llama-gpu"}}
    mounted = _container("main", volumeMounts=[{"name": "mine", "mountPath": "/weights"}])
    written = _pod("llama", containers=[mounted, _container("second")], volumes=[mine])
    pod = _made(pods, written)
    assert _ours(pod["spec"]["volumes"]) == [mine]
    assert _mounts(pod) == {
        "main": mounted["volumeMounts"],
        "second": [_mount("llama") | {"name": "mine"}],
    }


def test_two_caches_with_one_uri_share_a_volume(pods: World) -> None:
    _own_cache(pods, "same", "gpu", "s3://pods/llama")
    _until_offered(pods, "gpu", f"{TEAM}/same")
    pod = _made(pods, _pod("same_llama"))
    (volume,) = _ours(pod["spec"]["volumes"])
    assert volume["name"] == _mount("llama")["name"]
    assert [one["mountPath"] for one in _mounts(pod)["main"]] == [
        "/mnt/models/same",
        "/mnt/models/llama",
    ]


def test_a_name_that_another_one_ends_in(pods: World) -> None:
    # With one URI, the volume of the first is that of the second too.
    uri = "s3://pods/one-uri"
    _own_cache(pods, "my-tail", "gpu", uri)
    _own_cache(pods, "tail", "cpu", uri)
    _until_offered(pods, "gpu", f"{TEAM}/my-tail")
    _until_offered(pods, "cpu", f"{TEAM}/tail")
    for label in ("my-tail_tail", "tail_my-tail"):
        pod = _made(pods, _pod(label))
        claims = pod["metadata"]["annotations"][f"{PREFIX}/claims"]
        assert {one.partition("=")[0] for one in claims.split(",")} == {"my-tail", "tail"}


def test_a_sidecar_that_another_policy_adds_later_gets_the_model(pods: World) -> None:
    for obj in _injector():
        pods.make(obj)
    written = _pod("llama_both")
    written["metadata"]["labels"]["inject"] = "yes"
    try:
        pods.until(
            lambda: len(_made(pods, written)["spec"]["containers"]) == 2, "the injecting policy"
        )
        pod = _made(pods, written)
    finally:
        for obj in _injector():
            kind = pods.api.kind_of(obj)
            pods.api.delete(kind, obj["metadata"]["name"])
    both = [_mount(name, f"/mnt/models/{name}") for name in ("llama", "both")]
    assert _mounts(pod) == {"main": both, "sidecar": both}
    assert _mounts(pod, init=True) == {"proxy": both}
    assert len(_ours(pod["spec"]["volumes"])) == 2


def _injector() -> list[KubeObject]:
    """A policy that adds a container and an init container, and comes after ours by its name."""
    kind = "MutatingAdmissionPolicy"
    name = "zz-injector"
    expression = """
        object.spec.containers.exists(c, c.name == 'sidecar') ? [] : [
          JSONPatch{op: 'add', path: '/spec/containers/-',
            value: {'name': 'sidecar', 'image': 'none'}},
          JSONPatch{op: 'add', path: '/spec/initContainers',
            value: [{'name': 'proxy', 'image': 'none', 'restartPolicy': 'Always'}]}
        ]
    """
    policy = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "objectSelector": {"matchLabels": {"inject": "yes"}},
            "resourceRules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["pods"],
                    "operations": ["CREATE"],
                }
            ],
        },
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
    }
    return [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": of,
            "metadata": {"name": name},
            "spec": spec,
        }
        for of, spec in ((kind, policy), (f"{kind}Binding", {"policyName": name}))
    ]


# What does not depend on the hooks, and what is not there.


def test_a_pod_without_the_label_stays_as_it_is(pods: World) -> None:
    pod = _made(pods, _pod(None, annotations={"models": "llama", "mount-path": "/x"}))
    assert _mounts(pod) == {"main": []}
    assert "affinity" not in pod["spec"]


def test_pods_get_their_models_while_the_hooks_are_down(pods: World) -> None:
    pods.cluster.stop(HOOKS)
    try:
        pod = _made(pods, _pod("llama"))
    finally:
        pods.cluster.start(HOOKS)
    assert _mounts(pod) == {"main": [_mount("llama")]}


def test_without_any_group_and_without_the_policies(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "local")
    http = HttpOrigin()
    cluster.up(
        1, metacontroller="standin", pod_policies=True, run_agents=False, owner_pid=os.getpid()
    )
    try:
        world = World(cluster, http, S3Origin())
        pod = _pod("llama", namespace="default")
        assert not world.api.list(PLACEMENTS)
        assert "there is no model llama for pods of the namespace default" in _refusal(world, pod)
        world.kubectl("delete", "-k", str(CHECKOUT / "deploy/pods"))
        world.until(lambda: not _refusal(world, pod), "the policies to be gone")
        made = _made(world, pod)
        assert _mounts(made) == {"main": []}
    finally:
        cluster.down()
        http.close()
