from __future__ import annotations

from typing import Any

import pytest

from agent.cluster.pod_mounts import PodMounts, PodUse, parse_pod, users
from agent.structs.manifest import CacheName

KEY = "0123456789abcdef"
OTHER = "fedcba9876543210"
LLAMA = {"name": "m", "persistentVolumeClaim": {"claimName": "llama-gpus"}}


def pod(
    *mounts: dict[str, Any],
    volumes: tuple[dict[str, Any], ...] = (LLAMA,),
    containers: str = "containers",
    phase: str = "Running",
) -> dict[str, Any]:
    spec: dict[str, Any] = {"volumes": list(volumes), "containers": [{"name": "c"}]}
    spec[containers] = [{"name": "c", "volumeMounts": list(mounts)}]
    return {
        "metadata": {"name": "server", "namespace": "team-a", "uid": "u"},
        "spec": spec,
        "status": {"phase": phase},
    }


def sub(path: str, field: str = "subPath") -> dict[str, Any]:
    return {"name": "m", "mountPath": "/m", field: path}


def on(path: str) -> dict[str, Any]:
    return {"name": "q", "mountPath": "/q", "subPath": path}


BOTH = {KEY, OTHER}
WHOLE = {"name": "m", "mountPath": "/m"}
QWEN = {"name": "q", "persistentVolumeClaim": {"claimName": "qwen-gpus"}}
EPHEMERAL = {"name": "m", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}


@pytest.mark.parametrize(
    ("found", "claims", "keys"),
    [
        (pod(WHOLE), {"llama-gpus"}, set()),
        # A claim that no container mounts yet, as one of an ephemeral container to come.
        (pod(), {"llama-gpus"}, set()),
        (pod(sub(f"models/{KEY}")), set(), {KEY}),
        (pod(sub(f"models/{KEY}/")), set(), {KEY}),
        (pod(sub(f"./models//{KEY}/onnx/fp16")), set(), {KEY}),
        (pod(sub(f"models/{KEY}", "subPathExpr")), set(), {KEY}),
        (pod(sub("models/$(MODEL)", "subPathExpr")), {"llama-gpus"}, set()),
        (pod(sub(f"models/{KEY}"), sub(f"models/{OTHER}")), set(), {KEY, OTHER}),
        (pod(sub(f"models/{KEY}"), WHOLE), {"llama-gpus"}, {KEY}),
        (pod(sub("models")), {"llama-gpus"}, set()),
        (pod(sub(f"models/{KEY}0")), {"llama-gpus"}, set()),
        (pod(sub(f"models/{KEY.upper()}")), {"llama-gpus"}, set()),
        (pod(sub(f"data/models/{KEY}")), {"llama-gpus"}, set()),
        (pod(sub(f"models/{KEY}"), containers="initContainers"), set(), {KEY}),
        (pod(sub(f"models/{KEY}"), containers="ephemeralContainers"), set(), {KEY}),
        (pod(WHOLE, phase="Unknown"), {"llama-gpus"}, set()),
        # The root's folder for a claim of one model.
        (pod(sub(f"volumes/{KEY}/models/{OTHER}")), set(), {KEY}),
        (pod(sub(f"models/{KEY}"), volumes=(LLAMA, QWEN)), {"qwen-gpus"}, {KEY}),
        (pod(sub(f"models/{KEY}"), on(f"models/{OTHER}"), volumes=(LLAMA, QWEN)), set(), BOTH),
        # Kubernetes names the claim of a generic ephemeral volume by the pod and the volume.
        (pod(WHOLE, volumes=(EPHEMERAL,)), {"server-m"}, set()),
        (pod(sub(f"models/{KEY}"), volumes=(EPHEMERAL,)), set(), {KEY}),
    ],
)
def test_what_a_pod_mounts(found: dict[str, Any], claims: set[str], keys: set[str]) -> None:
    expected = PodMounts("team-a", "server", frozenset(claims), frozenset(keys), uid="u")
    assert parse_pod(found) == expected


@pytest.mark.parametrize(
    ("path", "mounts", "keys"),
    [
        (f"/var/lib/localmodel/models/{KEY}", (), {KEY}),
        (f"/var/lib/localmodel/models/{KEY}/", (WHOLE,), {KEY}),
        (f"/var/lib/localmodel/models/{KEY}/onnx", (WHOLE,), {KEY}),
        ("/var/lib/localmodel", (sub(f"models/{KEY}"), sub(f"models/{OTHER}")), {KEY, OTHER}),
        ("/var/lib/localmodel/models", (sub(KEY),), {KEY}),
        (f"/var/lib/localmodel/volumes/{KEY}", (), {KEY}),
        (f"/var/lib/localmodel/volumes/{KEY}/models/{KEY}", (WHOLE,), {KEY}),
        ("/var/lib/localmodel", (sub(f"volumes/{KEY}/models/{KEY}"),), {KEY}),
        (
            "/var/lib/localmodel",
            (sub("models/$(MODEL)", "subPathExpr"), sub(f"models/{KEY}")),
            {KEY},
        ),
    ],
)
def test_what_a_host_path_leads_to(
    path: str, mounts: tuple[dict[str, Any], ...], keys: set[str]
) -> None:
    found = parse_pod(pod(*mounts, volumes=({"name": "m", "hostPath": {"path": path}},)))
    assert found == PodMounts(
        "team-a", "server", frozenset(), keys=frozenset(), host_keys=frozenset(keys), uid="u"
    )


@pytest.mark.parametrize(
    "found",
    [
        pod(WHOLE, phase="Succeeded"),
        pod(sub(f"models/{KEY}"), phase="Failed"),
        pod(WHOLE, volumes=({"name": "m", "emptyDir": {}},)),
        # As the agent's own pod: it mounts the root of all models.
        pod(WHOLE, volumes=({"name": "m", "hostPath": {"path": "/var/lib/localmodel"}},)),
        {"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "c"}]}},
    ],
)
def test_pods_that_mount_no_model(found: dict[str, Any]) -> None:
    assert parse_pod(found) is None


RUNS = {"running": {"startedAt": "2026-08-01T12:00:00Z"}}
ENDED = {"terminated": {"exitCode": 1}}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
BLOCKED = {"waiting": {"reason": "CreateContainerConfigError"}}
CRASHED = {"waiting": {"reason": "CrashLoopBackOff"}}
NO_IMAGE = ("ErrImagePull", "ErrImageNeverPull", "ImagePullBackOff", "InvalidImageName")


def missing(volume: str) -> dict[str, Any]:
    """The state of a container whose mount of this volume has no folder, in kubelet's words."""
    message = f'failed to create subPath directory for volumeMount "{volume}" of container "c"'
    return {"waiting": {**BLOCKED["waiting"], "message": message}}


def reported(found: dict[str, Any], kind: str = "container", **status: Any) -> dict[str, Any]:
    """The pod with this status of its container `c`."""
    found["status"][f"{kind}Statuses"] = [{"name": "c", **status}]
    return found


def pending(*mounts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return pod(*(mounts or (sub(f"models/{KEY}"),)), phase="Pending", **fields)


@pytest.mark.parametrize(
    ("found", "waits", "is_blocked"),
    [
        # Kubelet has not reported yet.
        (pending(), True, False),
        (pending(WHOLE), True, False),
        (pending(containers="initContainers"), True, False),
        (
            pending(WHOLE, volumes=({"name": "m", "hostPath": {"path": f"/r/models/{KEY}"}},)),
            *(True, False),
        ),
        (reported(pending(), state=CREATING), True, False),
        (reported(pending(), state={}), True, False),
        (reported(pending(), state=BLOCKED), True, True),
        (
            reported(pending(containers="initContainers"), "initContainer", state=BLOCKED),
            True,
            True,
        ),
        (reported(pending(), state=missing("m")), True, True),
        (reported(pending(), state=missing("other")), True, False),
        # It waits for its image, whatever it mounts.
        *(
            (reported(pending(), state={"waiting": {"reason": why}}), *(False,) * 2)
            for why in NO_IMAGE
        ),
        # The other container of the pod has started.
        (reported(pod(sub(f"models/{KEY}")), state=BLOCKED), True, True),
        (reported(pending(), state=RUNS), False, False),
        (reported(pod(sub(f"models/{KEY}")), state=RUNS), False, False),
        (reported(pod(sub(f"models/{KEY}")), state=ENDED), False, False),
        # It ran, and waits for something else.
        (reported(pod(WHOLE), state=CRASHED, lastState=ENDED), False, False),
        (reported(pod(WHOLE), state=BLOCKED, lastState=ENDED), True, True),
        # Only a container without mounts has not started.
        (
            reported(pending(containers="initContainers"), "initContainer", state=ENDED),
            False,
            False,
        ),
        # A claim that nothing mounts keeps nothing waiting.
        (pod(phase="Pending"), False, False),
    ],
)
def test_whether_a_pod_waits(found: dict[str, Any], waits: bool, is_blocked: bool) -> None:
    assert use_of(found, KEY) == PodUse("team-a", "server", "u", waits, is_blocked)
    # Its end is all that a pod waits for that is being deleted.
    found["metadata"]["deletionTimestamp"] = "2026-08-01T12:00:00Z"
    assert use_of(found, KEY) == PodUse("team-a", "server", "u")


def use_of(found: dict[str, Any], key: str) -> PodUse:
    """How a pod uses the key of `llama`, or of `qwen`, which is the other key."""
    mounts = parse_pod(found)
    assert mounts is not None
    qwen = CacheName(name="qwen", node_group="gpus")
    (use,) = users([mounts], {KEY: [cache()], OTHER: [qwen]})[key]
    return use


@pytest.mark.parametrize("why", ["CreateContainerConfigError", "ContainerCreating"])
def test_a_container_of_another_claim_waits_for_no_model(why: str) -> None:
    data = {"name": "d", "persistentVolumeClaim": {"claimName": "data"}}
    found = pod(sub(f"models/{KEY}"), volumes=(LLAMA, data))
    mount = {"name": "d", "mountPath": "/d"}
    found["spec"]["containers"].append({"name": "log", "volumeMounts": [mount]})
    found["status"]["containerStatuses"] = [
        {"name": "c", "state": RUNS},
        {"name": "log", "state": {"waiting": {"reason": why}}},
    ]
    assert use_of(found, KEY) == PodUse("team-a", "server", "u")


def test_a_pod_is_blocked_by_the_model_that_is_missing() -> None:
    found = pending(sub(f"models/{KEY}"), on(f"models/{OTHER}"), volumes=(LLAMA, QWEN))
    reported(found, state=missing("q"))
    assert not use_of(found, KEY).is_blocked
    assert use_of(found, OTHER).is_blocked


@pytest.mark.parametrize(
    ("volume", "waits"),
    [
        ({"persistentVolumeClaim": {"claimName": "llama-gpus"}}, True),
        # A disk of the pod's own, or the claim of another model.
        ({"persistentVolumeClaim": {"claimName": "my-own-disk"}}, False),
        ({"persistentVolumeClaim": {"claimName": "qwen-gpus"}}, False),
        ({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}}, True),
        ({"hostPath": {"path": "/var/lib/localmodel"}}, True),
    ],
)
def test_a_pod_waits_only_by_a_claim_of_the_model(volume: dict[str, Any], waits: bool) -> None:
    found = pending(volumes=({"name": "m", **volume},))
    # It uses the model in any case, which keeps the copy.
    assert use_of(reported(found, state=BLOCKED), KEY) == PodUse(
        "team-a", "server", "u", waits, waits
    )


@pytest.mark.parametrize(
    ("caches", "waits"),
    [
        ([CacheName(name="llama", namespace="team-a", node_group="gpus")], True),
        # As KServe's agent leaves a node.
        ([CacheName(name="llama")], True),
        ([CacheName(name="llama", node_group="cpus")], False),
        ([CacheName(name="qwen"), CacheName(name="llama", node_group="gpus")], True),
        ([], False),
    ],
)
@pytest.mark.parametrize("mount", [sub(f"models/{KEY}/onnx"), sub(f"volumes/{KEY}/models/{KEY}")])
def test_whose_claim_a_pod_waits_by(
    mount: dict[str, Any], caches: list[CacheName], waits: bool
) -> None:
    mounts = parse_pod(pending(mount))
    assert mounts is not None
    (use,) = users([mounts], {KEY: caches})[KEY]
    assert use.waits is waits


def mounts(
    namespace: str = "team-a", *, claim: str = "", key: str = "", uid: str = ""
) -> PodMounts:
    claims, keys = frozenset({claim} - {""}), frozenset({key} - {""})
    return PodMounts(namespace, "server", claims, keys, uid=uid)


def cache(namespace: str = "", group: str = "gpus") -> CacheName:
    return CacheName(name="llama", namespace=namespace, node_group=group)


@pytest.mark.parametrize(
    ("found", "caches", "used"),
    [
        (mounts(claim="llama-gpus"), [cache()], {KEY}),
        (mounts("team-b", claim="llama-gpus"), [cache()], {KEY}),
        (mounts(claim="llama-gpus"), [cache("team-a")], {KEY}),
        (mounts("team-b", claim="llama-gpus"), [cache("team-a")], set()),
        (mounts(claim="llama-cpus"), [cache()], set()),
        (mounts(claim="llama-cpus"), [cache(), cache(group="cpus")], {KEY}),
        (mounts(claim="llama"), [cache()], set()),
        (mounts(claim="llama-gpus"), [], set()),
        # As KServe's agent leaves a node.
        (mounts(claim="llama-any"), [cache(group="")], {KEY}),
        (mounts(claim="other-any"), [cache(group="")], set()),
        (mounts(key=KEY), [], {KEY}),
        # A model whose claim it has, and another one by its sub-path.
        (mounts(claim="llama-gpus", key=OTHER), [cache()], {KEY, OTHER}),
        (mounts(key=OTHER), [cache()], {OTHER}),
        # By a sub-path of any claim a pod can name every model.
        (mounts(key=KEY), [cache("team-a")], {KEY}),
        (mounts("team-b", key=KEY), [cache("team-a")], set()),
        (mounts("team-b", key=KEY), [cache("team-a"), cache("team-b")], {KEY}),
        (mounts("team-b", key=KEY), [cache("team-a"), cache()], {KEY}),
        # Who may mount the node's directories may read them in any case.
        (
            PodMounts("team-b", "server", frozenset(), frozenset(), frozenset({KEY})),
            [cache("team-a")],
            {KEY},
        ),
    ],
)
def test_which_keys_a_pod_uses(found: PodMounts, caches: list[CacheName], used: set[str]) -> None:
    use = PodUse(found.namespace, "server")
    assert users([found], {KEY: iter(caches)}) == dict.fromkeys(used, (use,))


def test_a_variable_of_a_sub_path_has_its_value() -> None:
    found = pod(sub("models/$(MODEL)/$(POD)", "subPathExpr"))
    field = {"fieldRef": {"fieldPath": "metadata.name"}}
    (container,) = found["spec"]["containers"]
    container["env"] = [{"name": "MODEL", "value": KEY}, {"name": "POD", "valueFrom": field}]
    assert parse_pod(found) == mounts(key=KEY, uid="u")
    container["env"][0] = {"name": "MODEL", "valueFrom": field}
    assert parse_pod(found) == mounts(claim="llama-gpus", uid="u")


def test_a_sub_path_of_another_model_is_no_use_of_the_claims_own() -> None:
    found = parse_pod(pod(sub(f"models/{OTHER}")))
    assert found is not None
    assert list(users([found], {KEY: [cache()]})) == [OTHER]


def test_all_pods_of_a_key_are_told() -> None:
    first, second = mounts(claim="llama-gpus"), mounts("team-b", key=KEY)
    unused = {OTHER: [CacheName(name="qwen", node_group="gpus")]}
    uses = (PodUse("team-a", "server"), PodUse("team-b", "server"))
    assert users([first, second], {KEY: [cache()], **unused}) == {KEY: uses}
