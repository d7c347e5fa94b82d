"""From a cluster where KServe runs the local model cache to localmodel, and back, and there again.

One cluster with agents goes through it all, one test after the other: what KServe leaves is laid
out, the takeover is run as docs/kserve.md tells it, and every object and every byte is compared.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from crds.keys import model_key
from deploy.kube.errors import ApiError
from deploy.kube.kinds import (
    CACHES,
    CLAIMS,
    COMPOSITES,
    CRDS,
    DECORATORS,
    GROUPS,
    JOBS,
    LOCAL_MODEL_NODES,
    NAMESPACE_CACHES,
    NAMESPACES,
    NODES,
    PLACEMENTS,
    VOLUMES,
    WEBHOOKS,
)
from deploy.local import manifests
from deploy.local.cluster import Cluster
from deploy.local.layout import CHECKOUT
from deploy.local.origin import S3Origin
from tests.e2e import audit
from tests.e2e.conftest import METACONTROLLERS
from tests.e2e.kserve import ISVCS, LLM_ISVCS, SECONDS, KServeWorld
from tests.e2e.kserve_crds import KSERVE, kserves, ours, replace, unguarded
from tests.e2e.kserve_left import FINALIZER, JOB_NAMESPACE, NAMESPACE_FINALIZER, WEBHOOK, KServeLeft
from tests.e2e.migration import IMPORTED, LAID_OUT, NODE_NAMES, SERVED, Migration
from tests.e2e.origin import HttpOrigin
from tests.e2e.takeover import A_PERSON_FIRST, NOTHING_LEFT, OK, Takeover

if TYPE_CHECKING:
    from collections.abc import Iterator


GRACE_SECONDS = 5.0
READY_SECONDS = 60.0


def _answers(world: KServeWorld) -> bool:
    """Whether all kinds can be listed: not for a second after their CRDs were changed."""
    try:
        for resource in (CACHES, NAMESPACE_CACHES, GROUPS, LOCAL_MODEL_NODES):
            world.api.list(resource)
    except ApiError as error:
        if error.status == 429:
            return False
        raise
    return True


def _finalizers(world: KServeWorld, name: str) -> list[str]:
    space = LAID_OUT[name][0]
    found = world.api.get(NAMESPACE_CACHES if space else CACHES, name, space)
    return found["metadata"].get("finalizers") or []


def _held(world: KServeWorld) -> list[str]:
    """Finalizers of the cache that KServe imports."""
    space, name, _ = IMPORTED
    found = world.api.get(NAMESPACE_CACHES, name, space)
    return found["metadata"].get("finalizers") or []


def _all_taken(world: KServeWorld) -> None:
    world.until(
        lambda: all(
            any("metacontroller" in one for one in _finalizers(world, name)) for name in LAID_OUT
        ),
        "Metacontroller's finalizers",
        SECONDS,
    )


def _is_labelled(world: KServeWorld, namespace: str, claim: str) -> bool:
    """Whether localmodel has made a claim its own."""
    labels = world.api.get(CLAIMS, claim, namespace)["metadata"].get("labels") or {}
    return bool(labels.get("app.kubernetes.io/managed-by") == "localmodel")


def _is_ready(world: KServeWorld, name: str) -> bool:
    conditions = world.status(name, LAID_OUT[name][0]).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _all_adopted(migration: Migration) -> bool:
    """Whether each node's agent says itself that it has each model."""
    for name, (_, _, nodes) in LAID_OUT.items():
        key = model_key(migration.uri(name))
        for node in nodes:
            status = migration.world.api.get(LOCAL_MODEL_NODES, node).get("status", {})
            if not any(m["key"] == key and m.get("cached") for m in status.get("models", ())):
                return False
    return True


@pytest.fixture(scope="module", params=METACONTROLLERS[-1:])
def migration(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Migration]:
    folder = tmp_path_factory.mktemp(f"migration-{request.param}")
    cluster = Cluster(folder / "local")
    http = HttpOrigin(ranges=True)
    state = Migration(KServeWorld(cluster, http, S3Origin()))

    def before() -> None:
        state.lay_out()
        state.objects = state.look_at_objects()
        state.files = state.look_at_files()
        # As the page tells it: the policies, then the command, then localmodel.
        file = CHECKOUT / "deploy/overlays/kserve/policies.yaml"
        manifests.apply_all(cluster.api, manifests.read([file], hooks_url=""))
        state.takeover = Takeover.on(cluster, folder)
        state.shown = state.command.run()
        with pytest.raises(ApiError, match="failed calling webhook"):
            state.world.patch(CACHES, "llama", {"metadata": {"labels": {"still": "refused"}}})
        state.first = state.command.run("--apply")

    try:
        cluster.up(
            3,
            metacontroller=request.param,
            default_storage_class=True,
            overlay="kserve",
            grace_seconds=GRACE_SECONDS,
            progress_seconds=0.5,
            before=before,
            owner_pid=os.getpid(),
        )
        state.installed_at = time.monotonic()
        yield state
        audit.check(cluster)
    finally:
        cluster.down()
        http.close()


def test_the_first_run_prepares_what_localmodel_needs(migration: Migration) -> None:
    world, shown, first = migration.world, migration.shown, migration.first
    assert shown is not None
    assert first is not None
    assert shown.code == first.code == A_PERSON_FIRST, first.said
    assert "install localmodel" in first.said
    # What was shown is what was done, in that order.
    steps = [line.strip() for line in shown.said.splitlines() if " from LocalModelCache" in line]
    assert len(steps) == 1
    assert "LocalModelCache going: it is being deleted" in steps[0]
    positions = [
        first.said.index(text)
        for text in (
            "annotate CustomResourceDefinition",
            f"delete Job {JOB_NAMESPACE}/llama-node-1",
            f"delete PersistentVolumeClaim {JOB_NAMESPACE}/llama-gpu",
            "delete PersistentVolume llama-gpu-download",
            f"delete ValidatingWebhookConfiguration {WEBHOOK}",
            "from LocalModelCache going",
        )
    ]
    assert positions == sorted(positions)
    assert world.find(WEBHOOKS, WEBHOOK) is None
    assert world.find(CACHES, "going") is None
    assert not world.api.list(JOBS, JOB_NAMESPACE)
    # A claim goes when its finalizer is taken off, and a volume when its claim is gone.
    world.until(lambda: not world.api.list(CLAIMS, JOB_NAMESPACE), "the claims to go", SECONDS)
    serving = {f"{claim}-{namespace}" for namespace, claim in SERVED}
    world.until(
        lambda: {one["metadata"]["name"] for one in world.api.list(VOLUMES)} == serving,
        "all other volumes to go",
        SECONDS,
    )
    for plural in KSERVE:
        crd = world.api.get(CRDS, ours(plural)["metadata"]["name"])
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_second_run_takes_kserves_finalizers_off(migration: Migration) -> None:
    world = migration.world
    _all_taken(world)
    for name in LAID_OUT:
        assert len(_finalizers(world, name)) == 2
    ran = migration.command.run("--apply")
    assert ran.code == OK, ran.said
    for name in LAID_OUT:
        (finalizer,) = _finalizers(world, name)
        assert finalizer.startswith("metacontroller.io/")
    ran = migration.command.run("--apply")
    assert ran.code == OK
    assert NOTHING_LEFT in ran.said


def test_no_object_is_another_one_and_no_claim_is_bound_anew(migration: Migration) -> None:
    world = migration.world
    for namespace, claim in SERVED:
        world.until(partial(_is_labelled, world, namespace, claim), "claims to be ours", SECONDS)
    world.wait_users("llama", "team-a/chat")
    world.wait_users("llama", "team-b/big", field="llmInferenceServices")
    world.wait_users("private", "team-a/own", namespace="team-a")
    migration.compare()


def test_no_file_is_touched_and_every_cache_is_ready_in_a_minute(migration: Migration) -> None:
    world = migration.world
    # KServe's word alone makes a cache Ready; its folder counts once an agent has looked at it.
    world.until(
        lambda: all(_is_ready(world, name) for name in LAID_OUT) and _all_adopted(migration),
        "all caches to be Ready, with all their folders",
        max(migration.installed_at + READY_SECONDS - time.monotonic(), 1),
    )
    assert migration.look_at_files() == migration.files
    # The origin was asked what it has, and sent none of it.
    assert world.http.requests
    assert world.http.fetched == []


def test_the_way_back_leaves_claims_volumes_and_folders_as_they_are(migration: Migration) -> None:
    world, cluster = migration.world, migration.world.cluster
    world.until(lambda: len(world.api.list(PLACEMENTS)) == 2, "the plans", SECONDS)
    for resource in (COMPOSITES, DECORATORS):
        for obj in world.api.list(resource):
            world.delete(resource, obj["metadata"]["name"])
    for node in NODE_NAMES:
        cluster.stop(f"agent-{node}")
    ran = migration.command.run("--back", "--apply")
    assert ran.code == OK, ran.said
    for name in LAID_OUT:
        assert _finalizers(world, name) == []
    for resource in (GROUPS, NODES, LOCAL_MODEL_NODES):
        for obj in world.api.list(resource):
            metadata = obj["metadata"]
            assert not metadata.get("finalizers"), metadata
            assert not [label for label in metadata.get("labels", ()) if "kserve.io/" in label]
    assert not world.api.list(PLACEMENTS)
    migration.compare()
    assert migration.look_at_files() == migration.files
    ran = migration.command.run("--back", "--apply")
    assert ran.code == OK
    assert NOTHING_LEFT in ran.said

    # KServe's chart puts its CRDs back, and its agent finds each model listed as before.
    with unguarded(world.api):
        for plural in KSERVE:
            replace(world.api, kserves(plural))
    world.until(lambda: _answers(world), "the kinds to be served again", SECONDS)
    migration.compare()


def test_localmodel_comes_again_after_the_way_back(migration: Migration) -> None:
    world, cluster = migration.world, migration.world.cluster
    for name in LAID_OUT:
        space = LAID_OUT[name][0]
        finalizer = NAMESPACE_FINALIZER if space else FINALIZER
        change = {"metadata": {"finalizers": [finalizer]}}
        world.api.patch(NAMESPACE_CACHES if space else CACHES, name, change, space)
    KServeLeft(world.api).webhook()
    assert migration.command.run("--apply").code == A_PERSON_FIRST
    for plural in KSERVE:
        replace(world.api, ours(plural))
    world.until(lambda: _answers(world), "the kinds to be served again", SECONDS)
    url = cluster.hooks_url
    controllers = manifests.read(manifests.controller_files(CHECKOUT), hooks_url=url)
    manifests.apply_all(world.api, controllers)
    for node in NODE_NAMES:
        cluster.start(f"agent-{node}")
    # A kind that was away is found again by looking.
    world.until(lambda: len(world.api.list(PLACEMENTS)) == 2, "the plans", 120)
    _all_taken(world)
    assert migration.command.run("--apply").code == OK
    world.wait_users("llama", "team-a/chat")
    migration.compare()
    assert migration.look_at_files() == migration.files


def test_each_cache_can_be_deleted_afterwards_and_goes(migration: Migration) -> None:
    world = migration.world
    assert "team-a/chat" in world.not_deleted(CACHES, "llama")
    for resource, name, namespace in (
        (ISVCS, "chat", "team-a"),
        (LLM_ISVCS, "big", "team-b"),
        (ISVCS, "own", "team-a"),
    ):
        world.delete(resource, name, namespace)
    world.wait_users("llama")
    world.wait_users("llama", field="llmInferenceServices")
    world.wait_users("private", namespace="team-a")
    world.delete(CACHES, "llama")
    world.delete(CACHES, "bert")
    world.delete(NAMESPACE_CACHES, "private", "team-a")
    # As the command tells it: its import Job first, then the finalizer, which it leaves alone.
    space, shared, claim = IMPORTED
    ran = migration.command.run()
    assert f"kubectl -n {space} delete job {shared}-import" in ran.said, ran.said
    world.delete(JOBS, f"{shared}-import", space)
    world.delete(NAMESPACE_CACHES, shared, space)
    world.until(lambda: len(_held(world)) == 1, "localmodel to let it go", SECONDS)
    assert _held(world) == [NAMESPACE_FINALIZER]
    world.api.patch(NAMESPACE_CACHES, shared, {"metadata": {"finalizers": None}}, space)
    assert world.find(CLAIMS, claim, space)
    world.until(
        lambda: not world.api.list(CACHES) and not world.api.list(NAMESPACE_CACHES),
        "all caches to go",
        SECONDS,
    )
    for namespace, claim in SERVED:
        world.wait_gone(namespace, claim)
    assert world.find(NAMESPACES, JOB_NAMESPACE)


def test_their_folders_go_with_them(migration: Migration) -> None:
    world = migration.world
    world.until(
        lambda: not any(list((migration.disk(n) / "models").iterdir()) for n in NODE_NAMES),
        "the folders to go",
        60,
    )
