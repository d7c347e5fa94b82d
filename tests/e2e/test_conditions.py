"""What a user did wrong is told on the object that the user made, and disturbs nothing else."""

from __future__ import annotations

import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from crds.base import API_VERSION
from deploy.kube.errors import ForbiddenError, InvalidError
from deploy.kube.kinds import GROUPS, POLICY_BINDINGS
from deploy.local.policies import LAST as UNIQUE_URI

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.world import World


@pytest.fixture(scope="module")
def group(world: World) -> Iterator[str]:
    """A group with a healthy cache, which must stay healthy whatever its neighbours are."""
    uri = world.http.put("healthy.bin", b"healthy" * 1000)
    world.node("node-1", "wrongs")
    world.group("wrongs")
    world.cache("healthy", uri, "wrongs")
    world.wait_ready("healthy", 1)
    before = world.identity("node-1", uri)
    yield "wrongs"
    world.wait_ready("healthy", 1)
    assert world.identity("node-1", uri) == before
    world.remove_caches("healthy")


def test_a_host_that_does_not_exist(world: World, group: str) -> None:
    world.cache("no-host", "http://no-such-host.invalid/model.bin", group)
    message = world.wait_condition("no-host", "DownloadFailed")["message"]
    assert "Unreachable" in message
    assert "no-such-host.invalid" in message
    world.remove_caches("no-host")


def test_a_connection_that_is_refused_then_not(world: World, group: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        world.cache("refused", f"http://127.0.0.1:{port}/model.bin", group)
        message = world.wait_condition("refused", "DownloadFailed")["message"]
    assert "Unreachable" in message
    assert str(port) in message
    report = world.report("node-1", f"http://127.0.0.1:{port}/model.bin")
    assert report["attempts"] >= 1
    assert report["nextRetryTime"]
    world.remove_caches("refused")


def test_a_file_that_is_not_there_and_comes_later(world: World, group: str) -> None:
    uri = world.http.url("later.bin")
    world.cache("later", uri, group)
    message = world.wait_condition("later", "DownloadFailed")["message"]
    assert "NotFound" in message
    assert uri in message
    world.http.put("later.bin", b"here now")
    world.wait_ready("later", 1)
    world.remove_caches("later")


def test_a_scheme_that_the_agent_cannot_fetch(world: World, group: str) -> None:
    world.cache("unsupported", "oci://registry/model", group)
    assert "Unsupported" in world.wait_condition("unsupported", "DownloadFailed")["message"]
    world.remove_caches("unsupported")


def test_files_of_the_node_are_not_for_tenants(world: World, group: str) -> None:
    world.cache("passwd", "file:///etc/passwd", group)
    assert "Denied" in world.wait_condition("passwd", "DownloadFailed")["message"]
    assert not world.published("node-1", "file:///etc/passwd")
    world.remove_caches("passwd")


def test_a_model_that_is_larger_than_declared(world: World, group: str) -> None:
    uri = world.http.put("large.bin", bytes(3 << 20))
    world.cache("large", uri, group, modelSize="1Mi")
    condition = world.wait_condition("large", "LargerThanDeclared", kind="SizeAsDeclared")
    assert condition["status"] == "False"
    assert "the model has 3Mi, but spec.modelSize declares 1Mi" in condition["message"]
    # It is told, and not punished: KServe never read modelSize, and users have guessed it.
    world.wait_ready("large", 1)
    world.cache("large", uri, group, modelSize="3Mi")
    world.wait_condition("large", "WithinModelSize", kind="SizeAsDeclared")
    world.remove_caches("large")


@contextmanager
def _without_unique_uris(world: World) -> Iterator[None]:
    """Without the policy that refuses a second cache, unless both are created at the same time."""
    binding = world.api.get(POLICY_BINDINGS, UNIQUE_URI)
    world.delete(POLICY_BINDINGS, UNIQUE_URI)
    try:
        yield
    finally:
        for field in ("managedFields", "resourceVersion", "uid"):
            del binding["metadata"][field]
        world.make(binding)


def _is_made(world: World, name: str, uri: str, group: str) -> bool:
    try:
        world.cache(name, uri, group)
    except (ForbiddenError, InvalidError):
        return False
    return True


def test_two_caches_with_one_uri(world: World, group: str) -> None:
    uri = world.http.put("twice.bin", b"twice")
    world.cache("first", uri, group)
    world.wait_ready("first", 1)
    before = world.identity("node-1", uri)
    with _without_unique_uris(world):
        world.until(lambda: _is_made(world, "second", uri, group), "the policy to end")
    for kind in ("Ready", "Admitted"):
        condition = world.wait_condition("second", "DuplicateSourceModelUri", kind=kind)
        assert "'first'" in condition["message"]
    world.wait_ready("first", 1)

    # When the first goes, the second has the model at once: nothing is fetched again.
    gets = world.http.gets("twice.bin")
    world.remove_caches("first")
    world.wait_ready("second", 1)
    assert world.identity("node-1", uri) == before
    assert world.http.gets("twice.bin") == gets
    world.remove_caches("second")


def test_a_group_that_does_not_exist_and_comes_later(world: World) -> None:
    uri = world.http.put("early.bin", b"early")
    world.cache("early", uri, "late-group")
    condition = world.wait_condition("early", "NodeGroupNotFound")
    assert "late-group does not exist: create it" in condition["message"]
    world.group("late-group")
    condition = world.wait_condition("late-group", "NoNodes", resource=GROUPS)
    assert "late-group=yes" in condition["message"]
    world.wait_condition("early", "NoNodes")
    world.node("node-2", "late-group")
    world.wait_ready("early", 1)
    world.remove_caches("early")


REFUSED = [
    ({"sourceModelUri": "htp://x/y"}, "sourceModelUri must begin with one of"),
    ({"sourceModelUri": "/models/x"}, "sourceModelUri must begin with one of"),
    ({"sourceModelUri": "http://"}, "name a place after it"),
    ({"modelSize": "0"}, "modelSize must be a quantity of more than zero"),
    ({"modelSize": "-1Gi"}, "modelSize must be a quantity of more than zero"),
    ({"modelSize": "large"}, "modelSize"),
    ({"nodeGroups": ["a"]}, "exactly one of nodeGroup"),
    ({"nodeGroup": None}, "exactly one of nodeGroup"),
    ({"modelSize": "1e9999999"}, "modelSize"),
    ({"modelSize": "9" * 65}, "modelSize"),
    ({"hash": "md5:0"}, "spec.hash"),
    (
        {"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        "In and NotIn need values",
    ),
    ({"namespaceSelector": {"matchLabels": {"not a key": "x"}}}, "a label key is"),
    ({"namespaceSelector": {"matchLabels": {"a": "not a value"}}}, "matchLabels"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_the_api_server_refuses_and_what_it_says(
    world: World, change: dict[str, object], message: str
) -> None:
    spec = {"sourceModelUri": "http://h/m", "modelSize": "1Gi", "nodeGroup": "a"} | change
    obj = {
        "apiVersion": API_VERSION,
        "kind": "LocalModelCache",
        "metadata": {"name": "refused-by-rule"},
        "spec": {key: value for key, value in spec.items() if value is not None},
    }
    with pytest.raises(InvalidError) as refused:
        world.make(obj)
    assert message in str(refused.value)


def test_the_uri_of_a_cache_cannot_change(world: World) -> None:
    world.cache("fixed", "http://h/m", "nowhere")
    with pytest.raises(Exception, match="sourceModelUri is immutable"):
        world.cache("fixed", "http://h/other", "nowhere")
    world.remove_caches("fixed")


def _evicting(**eviction: object) -> dict[str, object]:
    return {"storageLimit": "1Gi", "nodeSelector": {"a": "b"}, "eviction": eviction}


def _limited(nodes: object) -> dict[str, object]:
    download = {"maxConcurrentNodes": nodes}
    return {"storageLimit": "1Gi", "nodeSelector": {"a": "b"}, "download": download}


GROUPS_REFUSED = [
    *(
        (_limited(nodes), "maxConcurrentNodes must be a number of nodes of 1 or more")
        for nodes in (0, -1, 1_000_000, "0%", "101%", "5.5%", "many", "")
    ),
    ({"storageLimit": "1Gi"}, "give exactly one of nodeSelector"),
    (
        {"storageLimit": "0", "nodeSelector": {"a": "b"}},
        "storageLimit must be a quantity of more than zero",
    ),
    (
        {"storageLimit": "1Gi", "nodeSelector": {"a": "b"}, "persistentVolumeSpec": {}},
        "give exactly one of nodeSelector",
    ),
    ({"storageLimit": "1Gi", "persistentVolumeSpec": {}}, "come together"),
    ({"storageLimit": "1Gi", "nodeSelector": {}}, "nodeSelector"),
    (_evicting(lowPercent=91), "lowPercent must not be more than highPercent, which is 90"),
    (_evicting(highPercent=60, lowPercent=61), "lowPercent must not be more than highPercent"),
    (_evicting(policy="Sometimes"), 'Unsupported value: "Sometimes"'),
    (_evicting(highPercent=101), "should be less than or equal to 100"),
]


@pytest.mark.parametrize(("spec", "message"), GROUPS_REFUSED)
def test_groups_that_the_api_server_refuses(
    world: World, spec: dict[str, object], message: str
) -> None:
    obj = {
        "apiVersion": API_VERSION,
        "kind": "LocalModelNodeGroup",
        "metadata": {"name": "refused-by-rule"},
        "spec": spec,
    }
    with pytest.raises(InvalidError) as refused:
        world.make(obj)
    assert message in str(refused.value)


@pytest.mark.parametrize("nodes", [1, 999_999, "1%", "100%", "7"])
def test_limits_that_the_api_server_takes(world: World, nodes: object) -> None:
    made = world.make(
        {
            "apiVersion": API_VERSION,
            "kind": "LocalModelNodeGroup",
            "metadata": {"name": "limited"},
            "spec": _limited(nodes),
        }
    )
    assert made["spec"]["download"] == {"maxConcurrentNodes": nodes}
    world.wait_condition("limited", "NoNodes", resource=GROUPS)
    world.delete(GROUPS, "limited")


def test_a_claim_name_that_another_cache_has(world: World) -> None:
    uris = [world.http.put(f"name-{n}.bin", bytes([n])) for n in (1, 2)]
    for group in ("taken-c", "c"):
        world.node("node-2", group)
        world.group(group)
    everywhere = {"matchLabels": {"nowhere": "yes"}}
    world.cache("name", uris[0], "taken-c", namespaceSelector=everywhere)
    world.wait_ready("name", 1)
    world.cache("name-taken", uris[1], "c", namespaceSelector=everywhere)
    condition = world.wait_condition("name-taken", "ClaimNameTaken")
    assert "'name-taken-c', as that of LocalModelCache 'name'" in condition["message"]
    world.wait_ready("name", 1)
    world.remove_caches("name")
    world.wait_ready("name-taken", 1)
    world.remove_caches("name-taken")


def test_every_field_can_be_explained(world: World) -> None:
    for kind in ("lmc", "lmnc", "lmng", "lmn", "lmp"):
        text = world.kubectl("explain", f"{kind}.spec")
        assert "<no description>" not in text.split("FIELDS:")[1]
