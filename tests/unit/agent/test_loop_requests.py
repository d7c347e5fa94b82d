"""Evictions and verifications that annotations of the LocalModelNode request."""

from __future__ import annotations

import errno
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agent.control.eviction_notice import EVICTION_NOTICE_SECONDS
from agent.control.scrubbing import RETRY_SECONDS
from agent.jobs.scrub_read import ScrubReader
from crds.eviction import EvictionPolicy
from crds.node_requests import Operation, format_request_time, request_annotation
from tests.unit.agent import inside
from tests.unit.agent.crowded import entry, fill, limit, models, prepare, told, use

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from agent.structs.manifest import Manifest
    from crds.node import LocalModel
    from tests.unit.agent.world import World


@pytest.fixture
def world(world: World) -> World:
    world.scrub_rate = 1 << 30
    prepare(world)
    limit(world, 9)
    return world


def request(
    world: World, operation: Operation, *names: str, time: datetime | str | None = None
) -> None:
    """Annotate the node as a person does, at the present time."""
    value = time if isinstance(time, str) else format_request_time(time or world.now())
    annotate(world, {request_annotation(operation, world.key(name)): value for name in names})


def annotate(world: World, annotations: dict[str, str]) -> None:
    assert world.api.node is not None
    metadata = world.api.node["metadata"]
    merged = metadata.get("annotations", {}) | annotations
    world.api.store({**world.api.node, "metadata": {**metadata, "annotations": merged}})
    world.loop.observe(world.api.node)


def want(world: World, *wanted: LocalModel) -> None:
    """Change the entries, and keep the annotations."""
    assert world.api.node is not None
    kept = world.api.node["metadata"].get("annotations", {})
    world.want(*wanted, told=False)
    annotate(world, kept)


def state(world: World, name: str) -> tuple[str, Any]:
    found = entry(world, name)
    return found["state"], found.get("reason")


def test_a_copy_of_another_hash_goes_by_request(world: World) -> None:
    fill(world, "a")
    del world.web.files["/a.bin"]
    want(world, *models(world, "a", hash="sha256:" + "0" * 64))
    world.settle()
    assert state(world, "a") == ("Failed", "NotFound")
    assert world.tree("a")
    request(world, Operation.EVICT, "a")
    world.settle()
    assert world.tree("a") is None


def test_a_copy_goes_by_request_and_stays_away(world: World) -> None:
    fill(world, "ab")
    request(world, Operation.EVICT, "a")
    world.settle()
    assert world.tree("a") is None
    assert world.tree("b")
    assert state(world, "a") == ("Evicted", "Requested")
    message = entry(world, "a")["message"]
    assert message.startswith("684Ki were freed at ")
    assert "because that was requested at 2026-08-01T" in message
    assert told(world, "Evicted") == [f"a: Requested: {message}"]
    # The group has room for it, and it stays away, also with another agent.
    for _ in range(3):
        world.step(60)
        world.settle()
    world.restart()
    world.loop.observe_pods(())
    world.loop.observe(world.api.node)
    world.settle()
    assert world.tree("a") is None
    assert state(world, "a") == ("Evicted", "Requested")


def test_an_eviction_by_request_has_its_notice(world: World) -> None:
    fill(world, "a")
    request(world, Operation.EVICT, "a")
    world.step()
    assert state(world, "a") == ("Evicted", "Requested")
    assert world.tree("a")
    world.step(EVICTION_NOTICE_SECONDS - 0.1)
    assert world.tree("a")
    world.step(0.1)
    assert world.tree("a") is None


def test_a_request_is_carried_out_once(world: World) -> None:
    """What a pod refers to comes back, and the same annotation does not take it away again."""
    fill(world, "a")
    request(world, Operation.EVICT, "a")
    world.settle()
    assert world.tree("a") is None
    world.step(1)
    use(world, "a")
    world.settle()
    assert world.tree("a")
    use(world)
    for _ in range(2):
        world.restart()
        world.loop.observe_pods(())
        world.loop.observe(world.api.node)
        world.settle()
        world.step(60)
        world.settle()
    assert world.tree("a")
    assert state(world, "a") == ("Downloaded", None)
    assert len(told(world, "Evicted")) == 1


def test_a_copy_comes_back_where_its_request_was_withdrawn(world: World) -> None:
    fill(world, "a")
    request(world, Operation.EVICT, "a")
    world.settle()
    assert world.api.node is not None
    world.api.node["metadata"]["annotations"] = {}
    annotate(world, {})
    world.settle()
    assert world.tree("a")


def test_a_model_that_a_service_refers_to_comes_back_at_once(world: World) -> None:
    world.want(*models(world, "a", referenced=True))
    world.settle()
    world.step(1)
    request(world, Operation.EVICT, "a")
    world.settle()
    assert len(told(world, "Evicted")) == 1
    assert told(world, "Referenced") == [
        "a: it was evicted, and comes back: a service refers to it"
    ]
    assert world.tree("a")


def test_a_mounted_copy_stays_until_the_pod_has_gone(world: World) -> None:
    fill(world, "a")
    use(world, "a")
    request(world, Operation.EVICT, "a")
    world.settle()
    assert state(world, "a") == ("Downloaded", "EvictionRequested")
    found = entry(world, "a")
    assert found["cached"]
    assert "and waits: the pod team/server uses it: end the pods" in found["message"]
    use(world)
    world.settle()
    assert state(world, "a") == ("Evicted", "Requested")


def test_a_pod_that_comes_last_keeps_the_copy(world: World) -> None:
    """The watch has not brought the pod yet, and the fresh look before the eviction has."""
    fill(world, "a")
    request(world, Operation.EVICT, "a")
    world.step()
    use(world, "a")
    world.step(EVICTION_NOTICE_SECONDS)
    assert world.tree("a")
    assert state(world, "a") == ("Downloaded", "EvictionRequested")


def test_a_pinned_copy_stays(world: World) -> None:
    world.want(*models(world, "a", retention="Pinned"))
    world.settle()
    world.step(1)
    request(world, Operation.EVICT, "a")
    world.settle()
    assert "has retention: Pinned" in entry(world, "a")["message"]
    want(world, *models(world, "a"))
    world.settle()
    assert state(world, "a") == ("Evicted", "Requested")


def test_a_group_that_does_not_evict_keeps_its_copies(world: World) -> None:
    limit(world, 9, EvictionPolicy.NONE)
    fill(world, "a")
    request(world, Operation.EVICT, "a")
    world.settle()
    assert world.tree("a")
    assert state(world, "a") == ("Downloaded", "EvictionRequested")
    assert (
        "the group gpus evicts nothing: set its eviction.policy to LRU"
        in entry(world, "a")["message"]
    )


def test_nothing_goes_while_the_pods_are_not_known(world: World) -> None:
    fill(world, "a")
    world.loop.observe_pods(None)
    request(world, Operation.EVICT, "a")
    world.settle()
    assert world.tree("a")
    assert "it is not known what the node's pods mount" in entry(world, "a")["message"]


def test_an_old_request_means_nothing_to_a_newer_copy(world: World) -> None:
    world.want(*models(world, "a"))
    world.step()
    request(world, Operation.EVICT, "a", time=world.now() - timedelta(hours=1))
    world.settle()
    assert world.tree("a")
    assert state(world, "a") == ("Downloaded", None)


@pytest.mark.parametrize("mounted", [True, False])
def test_a_repair_does_not_drop_a_request(world: World, mounted: bool) -> None:
    fill(world, "a")
    before = entry(world, "a")["downloadedTime"]
    use(world, *("a" if mounted else ""))
    (world.store.path(world.key("a")) / "a.bin").write_bytes(b"short")
    world.web.gate = threading.Event()
    world.step(60)
    world.settle_until(lambda: bool(world.active()))
    request(world, Operation.EVICT, "a")
    world.step(10)
    world.web.gate.set()
    world.settle_until(lambda: not world.active())
    if mounted:
        world.settle()
        # The copy is no newer than the request: it only waits for the pod.
        assert entry(world, "a")["downloadedTime"] == before
        assert state(world, "a") == ("Downloaded", "EvictionRequested")
        use(world)
    world.settle()
    assert state(world, "a") == ("Evicted", "Requested")
    assert world.tree("a") is None


def test_a_request_of_the_near_future_waits_for_its_time(world: World) -> None:
    fill(world, "a")
    request(world, Operation.EVICT, "a", time=world.now() + timedelta(seconds=90))
    world.settle()
    assert world.tree("a")
    world.step(87)
    # No look at the disk is due by then.
    assert world.step() == pytest.approx(world.seconds + 3)
    world.step(91)
    world.settle()
    assert world.tree("a") is None


def test_a_malformed_request_is_reported_once(world: World) -> None:
    fill(world, "a")
    request(world, Operation.EVICT, "a", time="tomorrow")
    world.settle()
    annotate(world, {"somebody/else": "x"})
    world.settle()
    assert world.tree("a")
    assert [message.partition(" is ignored")[0] for message in told(world, "InvalidRequest")] == [
        f"the annotation evict.localmodel.serving.kserve.io/{world.key('a')}"
    ]


def test_what_goes_by_request_may_be_room_enough(world: World) -> None:
    limit(world, 2.5)
    fill(world, "ab")
    request(world, Operation.EVICT, "b")
    want(world, *models(world, "abc"))
    world.settle()
    # The oldest copy, which would have gone for the third model, stays.
    assert world.states() == {"a": "Downloaded", "b": "Evicted", "c": "Downloaded"}


def test_a_copy_is_verified_soon(world: World) -> None:
    fill(world, "ab")
    first = entry(world, "a")["verifiedTime"]
    world.step(60)
    request(world, Operation.VERIFY, "a")
    asked = world.now()
    world.settle_until(lambda: entry(world, "a")["verifiedTime"] != first)
    assert entry(world, "a")["verifiedTime"] == f"{asked:%Y-%m-%dT%H:%M:%SZ}"
    assert not inside.is_reading(world.loop)
    # It is done, also for another agent; and the other copy's turn has not come.
    world.restart()
    world.loop.observe_pods(())
    world.loop.observe(world.api.node)
    world.step(60)
    world.settle()
    assert not inside.is_reading(world.loop)
    assert entry(world, "a")["verifiedTime"] == f"{asked:%Y-%m-%dT%H:%M:%SZ}"


def test_a_requested_verification_repairs_what_is_damaged(world: World) -> None:
    fill(world, "a")
    world.step(60)
    (file,) = (path for path in world.store.path(world.key("a")).iterdir())
    before, content = file.stat(), bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    request(world, Operation.VERIFY, "a")
    asked = world.now()
    world.settle_until(lambda: bool(told(world, "Damaged")))
    world.settle()
    assert world.tree("a") is not None
    assert bytes(content) not in world.tree("a").values()  # type: ignore[union-attr]
    assert state(world, "a") == ("Downloaded", None)
    # The verification is done, also for another agent.
    verified = entry(world, "a")["verifiedTime"]
    assert verified >= f"{asked:%FT%TZ}"
    world.restart()
    world.loop.observe_pods(())
    world.loop.observe(world.api.node)
    world.step(60)
    world.settle()
    assert not inside.is_reading(world.loop)
    assert entry(world, "a")["verifiedTime"] == verified


def test_a_verification_that_failed_is_tried_again_soon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that says nothing about the files, such as too many open files."""
    fill(world, "a")
    first = entry(world, "a")["verifiedTime"]
    tries: list[float] = []
    real = ScrubReader.bad_files

    def bad_files(self: ScrubReader, folder: Path, manifest: Manifest) -> Any:
        tries.append(world.seconds)
        if len(tries) < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(self, folder, manifest)

    monkeypatch.setattr(ScrubReader, "bad_files", bad_files)
    world.step(60)
    request(world, Operation.VERIFY, "a")
    world.settle_until(lambda: len(tries) == 1 and not inside.is_reading(world.loop))
    # No attempt follows at once.
    world.step(RETRY_SECONDS - 1)
    assert not inside.is_reading(world.loop)
    world.step(1)
    world.settle_until(lambda: len(tries) == 2 and not inside.is_reading(world.loop))
    world.step(RETRY_SECONDS)
    world.settle_until(lambda: entry(world, "a")["verifiedTime"] != first)
    assert len(tries) == 3
    # The routine scrub has its own, longer interval.
    world.step(3600)
    world.settle()
    assert len(tries) == 3


def test_a_requested_verification_comes_before_a_routine_one(world: World) -> None:
    """A scrub that nobody requested gives way, and is made up for later."""
    fill(world, "ab")
    world.scrub_rate = 1
    world.restart()
    world.loop.observe_pods(())
    world.loop.observe(world.api.node)
    world.step(86_400)
    routine = inside.scrubbing(world.loop)._key
    (other,) = {world.key("a"), world.key("b")} - {routine}
    name = "a" if other == world.key("a") else "b"
    stopped = inside.scrubbing(world.loop)._stopped
    request(world, Operation.VERIFY, name)
    world.step()
    assert inside.scrubbing(world.loop)._key == other
    assert stopped.is_set()
