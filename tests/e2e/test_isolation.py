"""Caches of several namespaces with one private URI: who gets the copy, and a claim on it."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING

import pytest

from agent.credentials.permission import ANNOTATION
from agent.structs.credentials import DEFAULT_NAMESPACE
from crds.base import API_VERSION
from crds.keys import model_key
from deploy.kube.kinds import CACHES, CLAIMS, LOCAL_MODEL_NODES, NAMESPACE_CACHES, VOLUMES
from hooks.naming import volume_name
from tests.content import weights
from tests.unit.agent.servers import WebFiles, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deploy.kube.kinds import KubeObject
    from tests.e2e.world import World
    from tests.unit.agent.servers import Handler, Server

WEIGHTS = weights(3 << 20)
# How long nothing must come of what is refused: its next tries are due within that.
QUIET_SECONDS = 12.0


@pytest.fixture
def origin() -> Iterator[Server]:
    """Files for those who say `Bearer good`."""
    files = WebFiles({f"/{name}.bin": WEIGHTS + name.encode() for name in ("shared", "first")})

    def answer(handler: Handler, path: str) -> None:
        if handler.headers.get("Authorization") == "Bearer good":
            files(handler, path)
        else:
            handler.reply(401)

    with serving(answer) as server:
        yield server


def _contents(origin: Server) -> int:
    """How often bytes were asked for, beside a file's first one."""
    return sum(headers.get("Range") != "bytes=0-0" for _, _, headers in origin.seen)


def _account(world: World, origin: Server, name: str, token: str, namespaces: str | None) -> None:
    """A ServiceAccount with a secret for the origin, which lists namespaces."""
    headers = json.dumps({"Authorization": f"Bearer {token}"})
    data = {"https-host": origin.url, "headers": headers}
    metadata = {"name": name, "namespace": DEFAULT_NAMESPACE}
    world.make(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata
            | {"annotations": {} if namespaces is None else {ANNOTATION: namespaces}},
            "data": {k: base64.b64encode(v.encode()).decode() for k, v in data.items()},
        }
    )
    world.make(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata,
            "secrets": [{"name": name}],
        }
    )


def _cache(world: World, namespace: str, uri: str, group: str, account: str | None) -> None:
    world.namespace(namespace)
    spec = {"sourceModelUri": uri, "modelSize": "4Mi", "nodeGroup": group}
    world.make(
        {
            "apiVersion": API_VERSION,
            "kind": "LocalModelNamespaceCache",
            "metadata": {"name": "model", "namespace": namespace},
            "spec": spec | ({"serviceAccountName": account} if account else {}),
        }
    )


def _condition(world: World, namespace: str, kind: str = "Ready") -> KubeObject:
    cache = world.find(NAMESPACE_CACHES, "model", namespace) or {}
    conditions = cache.get("status", {}).get("conditions", ())
    return next((dict(one) for one in conditions if one["type"] == kind), {})


def _wait(world: World, namespace: str, reason: str, kind: str = "Ready") -> KubeObject:
    def has_it() -> KubeObject:
        found = _condition(world, namespace, kind)
        return found if found.get("reason") == reason else {}

    return world.until(has_it, f"{namespace}/model to be {kind} because of {reason}")


def _report(world: World, node: str, uri: str, namespace: str) -> KubeObject:
    models = world.api.get(LOCAL_MODEL_NODES, node)["status"]["models"]
    found = (m for m in models if (m["key"], m.get("namespace", "")) == (model_key(uri), namespace))
    return next(found, {})


def _wait_mounted(world: World, namespace: str, group: str) -> None:
    _wait(world, namespace, "ModelCached")
    _wait(world, namespace, "AllBound", "ClaimsBound")
    assert world.api.get(CLAIMS, f"model-{group}", namespace)["status"]["phase"] == "Bound"


def _check_nothing_given(world: World, group: str, *namespaces: str) -> None:
    until = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < until:
        for namespace in namespaces:
            assert _condition(world, namespace)["status"] == "False"
            assert world.find(CLAIMS, f"model-{group}", namespace) is None
            assert world.find(VOLUMES, volume_name("model", group, namespace)) is None
        time.sleep(0.5)
    for namespace in namespaces:
        assert _condition(world, namespace, "ClaimsBound")["reason"] == "AwaitingAccess"


def _remove(world: World, *namespaces: str) -> None:
    for namespace in namespaces:
        world.delete(NAMESPACE_CACHES, "model", namespace)
    world.until(
        lambda: not any(world.find(NAMESPACE_CACHES, "model", one) for one in namespaces),
        "the caches to go",
    )


def test_a_copy_and_a_claim_on_it_are_only_for_who_is_accepted(
    world: World, origin: Server
) -> None:
    uri = f"{origin.url}/shared.bin"
    world.node("node-1", "iso")
    world.group("iso")
    _account(world, origin, "iso-one", "good", "iso-one")
    _account(world, origin, "iso-wrong", "stale", "iso-wrong")
    _account(world, origin, "iso-unlisted", "good", None)
    _cache(world, "iso-one", uri, "iso", "iso-one")
    _wait_mounted(world, "iso-one", "iso")
    fetched, files = _contents(origin), world.identity("node-1", uri)
    assert (world.copy("node-1", uri) / "shared.bin").read_bytes() == WEIGHTS + b"shared"

    # Another's credentials, wrong ones, ones that list nobody, and none.
    texts = {
        "iso-two": ("iso-one", "is not for the namespace iso-two"),
        "iso-wrong": ("iso-wrong", "401"),
        "iso-unlisted": ("iso-unlisted", "does not say which namespaces may use it"),
        "iso-none": (None, "401"),
    }
    for namespace, (account, text) in texts.items():
        _cache(world, namespace, uri, "iso", account)
        _wait(world, namespace, "DownloadFailed")
        report = _report(world, "node-1", uri, namespace)
        assert report["reason"] == "Denied"
        assert text in report["message"]
        assert report["nextRetryTime"]
        assert report.keys().isdisjoint({"size", "hash"})
    _check_nothing_given(world, "iso", *texts)

    # Whoever keeps the credentials lists the namespace.
    _account(world, origin, "iso-one", "good", "iso-one, iso-two")
    _wait_mounted(world, "iso-two", "iso")
    assert _contents(origin) == fetched
    assert world.identity("node-1", uri) == files
    assert _condition(world, "iso-one")["status"] == "True"

    # It is known after a restart, though the origin takes nobody's credentials any more.
    origin.answer = lambda handler, _: handler.reply(401)
    world.cluster.kill("agent-node-1")
    world.cluster.wait_for_pid("agent-node-1")
    until = time.monotonic() + 5
    while time.monotonic() < until:
        assert _report(world, "node-1", uri, "iso-two")["state"] == "Downloaded"
        time.sleep(0.2)
    _remove(world, "iso-one", *texts)


def test_a_first_cache_that_is_refused_keeps_the_model_from_nobody(
    world: World, origin: Server
) -> None:
    uri = f"{origin.url}/first.bin"
    world.node("node-2", "iso-first")
    world.group("iso-first")
    _account(world, origin, "iso-bad", "stale", "*")
    _account(world, origin, "iso-good", "good", "*")
    _cache(world, "iso-bad", uri, "iso-first", "iso-bad")
    _wait(world, "iso-bad", "DownloadFailed")
    _cache(world, "iso-good", uri, "iso-first", "iso-good")
    _wait_mounted(world, "iso-good", "iso-first")
    assert _condition(world, "iso-bad")["reason"] == "DownloadFailed"
    assert _contents(origin) > 0

    # A LocalModelCache may use any credentials, and is asked about too: it has the copy at once.
    fetched = _contents(origin)
    world.cache("iso-all", uri, "iso-first", serviceAccountName="iso-good")
    world.wait_ready("iso-all", 1)
    assert _contents(origin) == fetched
    world.delete(CACHES, "iso-all")
    _remove(world, "iso-bad", "iso-good")
