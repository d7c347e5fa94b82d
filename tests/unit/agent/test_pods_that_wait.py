"""What is reported to the waiting pods of a node, and when kubelet is woken for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.cluster.pod_mounts import PodUse
from agent.control.waiting import Waiting
from agent.control.waiting_pods import PROGRESS_SECONDS, WaitingPods
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.grants import with_grant
from agent.structs.requests import Failure, Requester, Transfer
from tests.unit.agent.helpers import local_model, manifest_of
from tests.unit.agent.rows import EVICTED, row, table, wanted
from tests.unit.agent.world import PodLog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.control.rows import Row
    from crds.node import LocalModel

URI = "s3://bucket/model"
LLAMA = local_model("llama", URI)
WHOLE = manifest_of(URI, {"w": b"12345"})
SERVER = PodUse("team", "server", "uid-1", waits=True)
MIB = 1 << 20
ADOPTING = (
    "a folder that localmodel did not make is in its place; it is compared with the source, and "
    "used if it is the model"
)


class Node:
    """Waiting pods of a node, and the row of the one model that they wait for."""

    def __init__(self) -> None:
        self.log = PodLog()
        self.pods = WaitingPods(self.log)
        self.seconds = 100.0

    def see(
        self,
        found: Row,
        *pods: PodUse,
        listed: Sequence[LocalModel] = (LLAMA,),
        waiting: Mapping[str, Waiting] | None = None,
        after: float = 1.0,
    ) -> list[tuple[str, str]]:
        """What the pods are told of the row in a step some seconds later."""
        self.seconds += after
        asked = wanted(*listed)
        (key,) = asked.wishes
        found = replace(found, key=key, wish=asked.wishes[key], pods=pods or (SERVER,))
        made = replace(table(now=self.seconds), wanted=asked, rows={key: found})
        self.log.events.clear()
        self.pods.observe(made, waiting or {}, ())
        return [(event.reason, event.message) for event in self.log.events]


@pytest.fixture
def node() -> Node:
    return Node()


def downloading(done: int, total: int | None = 100 * MIB, speed: int | None = None) -> Row:
    return row(transfer=Transfer(done, total, speed, listed=total is not None))


def failed(kind: FailureKind, message: str) -> Row:
    failure = Failure(DownloadError(kind, message), 2, EVICTED.time)
    return row(failures={Requester(): failure})


@pytest.mark.parametrize(
    ("found", "waiting", "message"),
    [
        (row(), None, "its download begins next"),
        (downloading(0, None), None, "its download begins"),
        (downloading(30 * MIB), None, "downloading: 30Mi of 100Mi (30 %)"),
        (downloading(1, 0), None, "downloading: 1 of 0 (100 %)"),
        (
            downloading(30 * MIB, speed=2 * MIB),
            None,
            "downloading: 30Mi of 100Mi (30 %), 2Mi/s",
        ),
        (
            row(transfer=Transfer(0, 5, adopting=True, listed=True)),
            None,
            f"{ADOPTING}; downloading: 0 of 5 (0 %)",
        ),
        (
            failed(FailureKind.DENIED, "no such key"),
            None,
            "failed: Denied: no such key; the next try is at 2026-08-01T12:00:00Z",
        ),
        (row(), Waiting("CapacityFull", "it needs 9Gi"), "it needs 9Gi"),
        (row(), Waiting("KubeletThreshold", "it needs 9Gi"), "it needs 9Gi"),
        (
            row(evicted=EVICTED),
            None,
            "it was evicted, and comes back for this pod; its download begins next",
        ),
        (
            replace(downloading(50 * MIB), copy=row(evicted=EVICTED).copy),
            None,
            "it was evicted, and comes back for this pod; downloading: 50Mi of 100Mi (50 %)",
        ),
    ],
)
def test_why_a_pod_waits(node: Node, found: Row, waiting: Waiting | None, message: str) -> None:
    told = node.see(found, waiting={LLAMA.key: waiting} if waiting else None)
    assert told == [("WaitingForModel", f"llama: {message}")]
    (event,) = node.log.events
    assert event.pod == SERVER
    assert event.warning is ("failed" in message or waiting is not None)
    assert node.log.woken == []


def test_reasons_are_told_at_once_and_progress_now_and_then(node: Node) -> None:
    assert len(node.see(row())) == 1
    assert node.see(row(), after=10 * PROGRESS_SECONDS) == []
    assert len(node.see(downloading(0, None))) == 1
    assert len(node.see(downloading(MIB))) == 1
    first = node.log.events[0].series
    assert node.see(downloading(2 * MIB), after=PROGRESS_SECONDS - 1) == []
    assert "3 %" in node.see(downloading(3 * MIB))[0][1]
    # It is the same Event, with another message.
    assert node.log.events[0].series == first
    assert node.see(downloading(4 * MIB)) == []
    assert "failed" in node.see(failed(FailureKind.DENIED, "no"))[0][1]
    assert node.log.events[0].series != first
    assert node.see(failed(FailureKind.DENIED, "still no")) == []


def test_a_pod_is_woken_once_for_each_publication(node: Node) -> None:
    node.see(downloading(MIB))
    assert node.see(row(manifest=WHOLE)) == [("ModelCached", "llama: it is on this node now (5)")]
    assert node.log.woken == ["server"]
    # Kubelet is slow, or the container waits for something else too.
    blocked = replace(SERVER, is_blocked=True)
    assert node.see(row(manifest=WHOLE), blocked) == []
    assert node.see(row(manifest=WHOLE), SERVER) == []
    assert node.log.woken == ["server"]
    # It went, and comes back.
    assert len(node.see(row(evicted=EVICTED))) == 1
    assert len(node.see(row(manifest=WHOLE))) == 1
    assert node.log.woken == ["server"] * 2
    # The next pod of the name is another one.
    node.see(row(), replace(SERVER, uid="uid-2"))
    node.see(row(manifest=WHOLE), replace(SERVER, uid="uid-2"))
    assert len(node.log.woken) == 3


def test_a_pod_that_finds_its_model_is_woken_only_if_it_has_missed_it(node: Node) -> None:
    assert node.see(row(manifest=WHOLE)) == []
    assert node.log.woken == []
    blocked = replace(SERVER, is_blocked=True)
    assert len(node.see(row(manifest=WHOLE), blocked)) == 1
    assert node.see(row(manifest=WHOLE), blocked) == []
    assert node.log.woken == ["server"]


def test_pods_that_run_and_unknown_pods_are_told_nothing(node: Node) -> None:
    assert node.see(downloading(MIB), replace(SERVER, waits=False)) == []
    assert len(node.see(downloading(MIB), SERVER)) == 1
    asked = wanted(LLAMA)
    unknown = replace(row(), key=LLAMA.key, wish=asked.wishes[LLAMA.key], pods=None)
    made = replace(table(mounted=None), wanted=asked, rows={LLAMA.key: unknown})
    node.pods.observe(made, {}, ())
    # What it was told is remembered meanwhile.
    assert node.see(downloading(MIB), SERVER) == []


def theirs(name: str = "theirs", namespace: str = "team-b", **fields: Any) -> LocalModel:
    return local_model(name, URI, namespace=namespace, **fields)


def by(requester: Requester) -> Row:
    return row(transfer=Transfer(MIB, 100 * MIB, listed=True, requester=requester))


def test_a_pod_is_told_of_no_cache_of_another_namespace(node: Node) -> None:
    other = replace(SERVER, namespace="team-b", name="other", uid="uid-2")
    hostile = replace(SERVER, namespace="team-c", uid="uid-3")
    listed = [theirs(), theirs("mine", "team")]
    told = node.see(by(Requester("team")), SERVER, other, hostile, listed=listed)
    assert [event.pod.uid for event in node.log.events] == ["uid-1", "uid-2"]
    assert "downloading" not in told[1][1]
    names = [message.partition(":")[0] for _, message in told]
    assert names == ["team/mine", "team-b/theirs"]
    # The second is not given the copy yet, and is not told that it is there.
    shared = row(manifest=with_grant(WHOLE, "s3://here", Requester("team"), ()))
    told = node.see(shared, SERVER, other, hostile, listed=listed)
    assert told == [("ModelCached", "team/mine: it is on this node now (5)")]
    assert node.log.woken == ["server"]


def test_a_pod_is_told_of_the_cache_that_has_the_model(node: Node) -> None:
    mine = theirs("mine", "team")
    assert node.see(downloading(MIB), listed=[LLAMA, mine])[0][1].startswith("team/mine: ")
    told = node.see(row(manifest=WHOLE), listed=[LLAMA, mine])
    assert told == [("ModelCached", "llama: it is on this node now (5)")]


def test_a_pod_learns_nothing_of_a_foreign_directory_nor_of_another_pod(node: Node) -> None:
    secret = failed(FailureKind.FOREIGN_DIRECTORY, "secret.bin differs")
    full = Waiting("CapacityFull", "it needs 9Gi")
    for waiting in (None, {LLAMA.key: full}):
        ((_, message),) = node.see(secret, waiting=waiting)
        assert "ForeignDirectory" in message
        assert "secret" not in message
    first = PodUse("a", "first")
    ((_, message),) = node.see(row(evicted=EVICTED), first, SERVER)
    assert "comes back for this pod" in message
    assert "first" not in message
