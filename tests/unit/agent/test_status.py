from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec import structs

from agent.control.manifest_hashes import ManifestHashes
from agent.control.rows import Row, Table
from agent.control.status import StatusBuilder, is_news, with_former_pods
from agent.control.waiting import Waiting
from agent.control.wanted import NO_WISH
from agent.disk.on_disk import Disk
from agent.structs.credentials import CredentialRef
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.grants import with_grant
from agent.structs.kubelet import (
    DEFAULT_THRESHOLDS,
    FileSystem,
    SharedBy,
    Sharing,
    bound_of,
    parse_thresholds,
)
from agent.structs.manifest import (
    Access,
    CacheName,
    Grant,
    Manifest,
    ManifestFile,
    make_manifest,
)
from agent.structs.records import Evicted
from agent.structs.requests import Failure, Requester, Transfer
from agent.structs.sizes import EvictionReason
from agent.structs.verified import verified
from crds.base import Condition
from crds.peers import AgentPeer
from tests.unit.agent.helpers import local_model, manifest_of
from tests.unit.agent.rows import POD, row, wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crds.node import LocalModel, LocalModelNodeStatus, NodeModelStatus

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
URI = "s3://bucket/model"
MODEL = local_model("llama", URI)
WHOLE = manifest_of(URI, {"w": b"12345"})
ACCESS = Access(origin="https://s3.example.com", listing="l", grants=(Grant(),))
VERIFIABLE = make_manifest(URI, [ManifestFile("w", 5, "a" * 64, version="v1")], access=ACCESS)
OTHER_HASH = "sha256:" + "0" * 64
FAILED = Failure(DownloadError(FailureKind.NOT_FOUND, "it is not there"), 3, LATER)
FAILURES = {Requester(): FAILED}
EVICTED = Evicted(time=NOW, size=4096, reason=EvictionReason.MADE_ROOM, message="for another")
WAITING = Waiting("CapacityFull", "too full")
DISK = Disk(100 << 30, 40 << 30, (60 << 30) + 12345)


def status_of(
    *rows: Row,
    models: Sequence[LocalModel] = (MODEL,),
    waiting: Waiting | None = None,
    previous: Sequence[Condition] = (),
    now: datetime = NOW,
    left_out: int = 0,
    **fields: Any,
) -> LocalModelNodeStatus:
    """The status of a node with these entries, where this is known of their keys."""
    asked = replace(wanted(*models, generation=7), left_out=left_out)
    known = {one.key: replace(one, wish=asked.wishes.get(one.key, NO_WISH)) for one in rows}
    others = {key: Row(key, wish) for key, wish in asked.wishes.items() if key not in known}
    table = Table(0.0, 60.0, 2, asked, known | others, **{"disk": DISK, **fields})
    waits = dict.fromkeys(known, waiting) if waiting else {}
    return StatusBuilder().build(table, waits, (), previous, now)


def known(**fields: Any) -> Row:
    """What is known of the model."""
    return row(key=MODEL.key, **fields)


@pytest.mark.parametrize(
    ("row_", "entry", "kserve", "reason", "message"),
    [
        pytest.param(
            known(),
            {"state": "Pending", "cached": False},
            "ModelDownloadPending",
            "Pending",
            "0 of 1 model cached, 1 pending",
            id="pending",
        ),
        pytest.param(
            known(transfer=Transfer()),
            {"state": "Downloading", "cached": False, "downloadedBytes": 0},
            "ModelDownloading",
            "Downloading",
            "0 of 1 model cached, 1 downloading",
            id="listing",
        ),
        pytest.param(
            known(transfer=Transfer(3, 5, 2, listed=True)),
            {
                "state": "Downloading",
                "cached": False,
                "size": 5,
                "downloadedBytes": 3,
                "bytesPerSecond": 2,
            },
            "ModelDownloading",
            "Downloading",
            "0 of 1 model cached, 1 downloading",
            id="downloading",
        ),
        pytest.param(
            known(manifest=WHOLE),
            {"state": "Downloaded", "cached": True, "size": 5, "hash": WHOLE.hash},
            "ModelDownloaded",
            "AllCached",
            "1 of 1 model cached",
            id="cached",
        ),
        pytest.param(
            known(failures=FAILURES),
            {
                "state": "Failed",
                "cached": False,
                "attempts": 3,
                "reason": "NotFound",
                "message": "it is not there",
                "nextRetryTime": "2026-08-01T12:05:00Z",
            },
            "ModelDownloadError",
            "NotFound",
            "0 of 1 model cached, 1 failed (llama: NotFound)",
            id="failed",
        ),
        pytest.param(
            known(failures=FAILURES, transfer=Transfer(1, 5, listed=True)),
            {
                "state": "Downloading",
                "cached": False,
                "attempts": 3,
                "size": 5,
                "downloadedBytes": 1,
            },
            "ModelDownloading",
            "Downloading",
            "0 of 1 model cached, 1 downloading",
            id="retry-that-was-answered",
        ),
        pytest.param(
            known(problem="w is gone"),
            {
                "state": "Pending",
                "cached": False,
                "reason": "Corrupt",
                "message": "the copy on the disk is damaged (w is gone); "
                "its bad files are fetched again",
            },
            "ModelDownloadPending",
            "Pending",
            "0 of 1 model cached, 1 pending",
            id="damaged",
        ),
        pytest.param(
            known(evicted=EVICTED, last_used=NOW + timedelta(seconds=59)),
            {
                "state": "Evicted",
                "cached": False,
                "lastUsedTime": "2026-08-01T12:00:00Z",
                "reason": "MadeRoom",
                "message": "for another",
            },
            "ModelDownloadPending",
            "AllCached",
            "0 of 1 model cached, 1 evicted",
            id="evicted",
        ),
        pytest.param(
            known(evicted=EVICTED, failures=FAILURES),
            {"state": "Evicted", "cached": False, "reason": "MadeRoom", "message": "for another"},
            "ModelDownloadPending",
            "AllCached",
            "0 of 1 model cached, 1 evicted",
            id="evicted-and-not-tried-again",
        ),
        pytest.param(
            known(evicted=EVICTED, pods=(POD,), transfer=Transfer(3, 5, listed=True)),
            {
                "state": "Downloading",
                "cached": False,
                "size": 5,
                "pods": 1,
                "downloadedBytes": 3,
                "reason": "Referenced",
                "message": "it was evicted, and comes back: the pod team/server refers to it",
            },
            "ModelDownloading",
            "Downloading",
            "0 of 1 model cached, 1 downloading",
            id="comes-back",
        ),
        pytest.param(
            known(evicted=EVICTED, pods=(POD,)),
            {
                "state": "Pending",
                "cached": False,
                "pods": 1,
                "reason": "Referenced",
                "message": "it was evicted, and comes back: the pod team/server refers to it",
            },
            "ModelDownloadPending",
            "Pending",
            "0 of 1 model cached, 1 pending",
            id="is-to-come-back",
        ),
        pytest.param(
            known(manifest=WHOLE, disk_bytes=4096),
            {
                "state": "Downloaded",
                "cached": True,
                "size": 5,
                "diskBytes": 4096,
                "hash": WHOLE.hash,
            },
            "ModelDownloaded",
            "AllCached",
            "1 of 1 model cached",
            id="what-it-takes",
        ),
    ],
)
def test_one_wanted_model(
    row_: Row, entry: dict[str, object], kserve: str, reason: str, message: str
) -> None:
    status = status_of(row_).to_json()
    expected = {"key": MODEL.key, "name": "llama"} | entry
    assert status["models"] == [expected]
    assert status["modelStatus"] == {"llama": kserve}
    (ready,) = status["conditions"]
    assert (ready["type"], ready["reason"], ready["message"]) == ("Ready", reason, message)
    as_it_should_be = entry["cached"] or entry["state"] == "Evicted"
    assert ready["status"] == ("True" if as_it_should_be else "False")


def test_what_comes_back_waits_for_room() -> None:
    row_ = known(evicted=EVICTED, pods=(POD,), failures=FAILURES)
    status = status_of(row_, waiting=WAITING).to_json()
    (model,) = status["models"]
    assert (model["state"], model["cached"], model["attempts"]) == ("Pending", False, 3)
    assert (model["reason"], model["message"]) == (
        "CapacityFull",
        "too full. The last try failed: NotFound: it is not there",
    )
    assert status["modelStatus"] == {"llama": "ModelDownloadPending"}
    (ready,) = status["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "CapacityFull")
    assert ready["message"] == "0 of 1 model cached, 1 pending"


def test_who_refers_to_what_comes_back() -> None:
    service = MODEL.model_copy(update={"referenced": True})
    (model,) = status_of(known(evicted=EVICTED), models=(service,)).models
    assert model.message == "it was evicted, and comes back: a service refers to it"
    many = [replace(POD, name=name) for name in ("z", "a")]
    (model,) = status_of(known(evicted=EVICTED, pods=many), models=(service,)).models
    assert model.message == "it was evicted, and comes back: the pod team/a refers to it"


def test_only_what_changed_is_made_anew() -> None:
    models = [local_model(name, f"s3://b/{name}") for name in "abc"]
    asked = wanted(*models)
    rows = {key: Row(key, wish) for key, wish in asked.wishes.items()}
    builder = StatusBuilder()

    def build(rows: dict[str, Row], waiting: dict[str, Waiting]) -> list[NodeModelStatus]:
        table = Table(0.0, 60.0, 2, asked, rows)
        return list(builder.build(table, waiting, (), (), NOW).models)

    a, b, c = build(rows, {})
    active = {models[0].key: replace(rows[models[0].key], transfer=Transfer())}
    again = build(rows | active, {models[1].key: WAITING})
    assert [model.state for model in again] == ["Downloading", "Pending", "Pending"]
    assert again[1].reason == "CapacityFull"
    assert again[2] is c
    third = build(rows, {models[1].key: WAITING})
    assert third[0] == a
    assert third[1] is again[1]
    assert build(rows, {})[1] == b


def test_retry_is_no_news_before_it_was_answered() -> None:
    assert status_of(known(failures=FAILURES)) == status_of(
        known(failures=FAILURES, transfer=Transfer())
    )


def test_names_generation_and_disk() -> None:
    team = local_model("llama", URI, namespace="team")
    shared = with_grant(WHOLE, "s3://here", Requester("team"), ())
    status = status_of(known(manifest=shared), models=(MODEL, team)).to_json()
    assert status["observedGeneration"] == 7
    assert status["modelStatus"].keys() == {"llama", "team/llama"}
    assert status["disk"] == {"capacity": "100Gi", "used": "40Gi", "available": "60Gi"}
    assert [c["message"] for c in status["conditions"]] == ["2 of 2 models cached"]


def test_message_counts_and_names_the_first_failure() -> None:
    models = [local_model(name, f"s3://b/{name}") for name in "abcd"]
    rows = (
        row(key=models[0].key, manifest=manifest_of("s3://b/a", {"w": b"1"})),
        row(key=models[1].key, transfer=Transfer()),
        row(key=models[2].key, failures=FAILURES),
    )
    status = status_of(*rows, models=models)
    (ready,) = status.conditions
    assert ready.message == "1 of 4 models cached, 1 downloading, 1 failed, 1 pending (c: NotFound)"
    assert ready.reason == "NotFound"


def test_nothing_wanted_is_ready() -> None:
    (ready,) = status_of(models=()).conditions
    assert (ready.status, ready.reason) == ("True", "NothingWanted")


def test_refused_entry_fails_though_the_files_are_there() -> None:
    uri = "file:///srv/model"
    allowed, refused = local_model("m", uri), local_model("m", uri, namespace="team")
    here = row(key=refused.key, manifest=manifest_of(uri, {"w": b"12345"}))
    status = status_of(here, models=(allowed, refused)).to_json()
    assert [model["cached"] for model in status["models"]] == [True, False]
    assert status["models"][1]["reason"] == "Denied"
    assert "use a LocalModelCache" in status["models"][1]["message"]


def test_a_copy_is_not_told_to_who_may_not_have_it() -> None:
    team = local_model("llama", URI, namespace="team", hash=OTHER_HASH)
    asked = (MODEL, team)
    unknown = status_of(known(manifest=WHOLE), models=asked).models[1].to_json()
    assert (unknown["state"], unknown["reason"]) == ("Pending", "CheckingAccess")
    refused = Failure(DownloadError(FailureKind.DENIED, "not for you"), 1, LATER)
    failures = {Requester("team"): refused}
    denied = status_of(known(manifest=WHOLE, failures=failures), models=asked).models[1].to_json()
    assert (denied["state"], denied["reason"], denied["message"]) == (
        "Failed",
        "Denied",
        "not for you",
    )
    for told in (unknown, denied):
        assert told["cached"] is False
        assert told.keys().isdisjoint({"size", "hash"})
        assert str(WHOLE.hash) not in str(told)


def test_a_failure_is_its_requesters_own_while_anothers_download_runs() -> None:
    one = local_model("one", URI, namespace="team", service_account_name="a")
    other = local_model("other", URI, namespace="team", service_account_name="b")
    first, second = (Requester("team", CredentialRef(service_account=name)) for name in "ab")
    refused = Failure(DownloadError(FailureKind.DENIED, "not for you"), 1, LATER)
    foreign = Failure(DownloadError(FailureKind.FOREIGN_DIRECTORY, "not ours"), 1, LATER)
    running = Transfer(1, 5, listed=True, requester=second)

    def states(failure: Failure) -> list[str]:
        row_ = known(transfer=running, failures={first: failure})
        return [model.state for model in status_of(row_, models=(one, other)).models]

    assert states(refused) == ["Failed", "Downloading"]
    # What is wrong with the node is over when anybody's download runs.
    assert states(foreign) == ["Downloading", "Downloading"]


def test_copy_with_another_hash_does_not_serve() -> None:
    picky = local_model("picky", URI, hash=OTHER_HASH)
    status = status_of(known(manifest=WHOLE), models=(MODEL, picky)).to_json()
    assert [model["state"] for model in status["models"]] == ["Downloaded", "Failed"]
    assert WHOLE.hash in status["models"][1]["message"]
    assert OTHER_HASH in status["models"][1]["message"]


def test_leftovers_are_told_until_they_are_gone() -> None:
    names = [CacheName(name="llama"), *(CacheName(name="x", namespace=n) for n in ("team", "no"))]
    shared = with_grant(WHOLE, "s3://here", Requester("team"), ())
    row_ = replace(known(manifest=shared, disk_bytes=4096, last_used=NOW), owners=tuple(names))
    status = status_of(row_, models=()).to_json()
    assert [
        (m.get("namespace", ""), m["name"], m["state"], m["cached"]) for m in status["models"]
    ] == [
        ("", "llama", "Removing", True),
        ("team", "x", "Removing", True),
        ("no", "x", "Removing", False),
    ]
    assert status["models"][2].keys() == {"key", "name", "namespace", "state", "cached"}
    assert status["modelStatus"] == {}


def test_foreign_directories_are_told_only_when_there_are_some() -> None:
    names = tuple(f"dir-{n:02}" for n in range(12))
    _, foreign = status_of(known(), foreign=names).conditions
    assert (foreign.type, foreign.status) == ("ForeignDirectories", "True")
    assert "12 entries" in foreign.message
    assert "dir-09, …" in foreign.message
    assert "dir-10" not in foreign.message


def test_a_name_that_is_no_unicode_is_told() -> None:
    name = os.fsdecode(b"mod\xe8le")
    failure = DownloadError(FailureKind.DENIED, f"/{name} is a link")
    assert failure.message == "/mod\\udce8le is a link"
    _, foreign = status_of(known(), foreign=(name,)).conditions
    assert "(mod\\udce8le)" in foreign.message


@pytest.mark.parametrize(("before", "at"), [("False", NOW), ("True", LATER)])
def test_transition_time_stays_until_the_condition_flips(before: str, at: datetime) -> None:
    old = Condition.model_validate(
        {
            "type": "Ready",
            "status": before,
            "lastTransitionTime": NOW,
            "reason": "Old",
            "message": "old",
        }
    )
    status = status_of(previous=(old,), now=LATER)
    (ready,) = status.conditions
    assert (ready.status, ready.last_transition_time) == ("False", at)


def test_messages_fit_the_schema() -> None:
    long = Failure(DownloadError(FailureKind.INTERNAL, "x" * 5000), 1, LATER)
    (model,) = status_of(known(failures={Requester(): long})).models
    assert len(model.message or "") == 1024


def test_progress_is_no_news_and_states_are() -> None:
    base = status_of(known(transfer=Transfer(1, 5, 1, listed=True)))
    progress = status_of(
        known(transfer=Transfer(4, 5, 9, listed=True), disk_bytes=8192, last_used=NOW),
        disk=replace(DISK, used=41 << 30),
    )
    state = status_of(known(manifest=WHOLE))
    assert base != progress
    assert not is_news(base, progress)
    assert is_news(base, state)
    assert is_news(base, status_of(models=()))
    assert is_news(base, status_of(known(transfer=Transfer(1, 5, 1, listed=True)), left_out=1))


def test_the_pods_that_use_a_model_are_counted() -> None:
    mine, theirs = (local_model("m", URI, namespace=name) for name in ("team", "other"))
    pods = [POD, replace(POD, name="b"), replace(POD, namespace="other")]
    shared = known(manifest=with_grant(WHOLE, "s3://here", Requester("team"), ()), pods=pods)
    both = status_of(shared, models=(MODEL, mine, theirs))
    # The last one may not have the copy, and is told of no use.
    assert [model.pods for model in both.models] == [3, 2, 0]
    # The pods of a model that is not there yet count.
    (waiting,) = status_of(known(pods=pods)).models
    assert waiting.pods == 3
    fewer = status_of(replace(shared, pods=()), models=(MODEL, mine, theirs))
    assert not is_news(both, fewer)
    assert with_former_pods(fewer, both) == both


def test_models_for_which_the_object_has_no_room_are_counted() -> None:
    message = status_of(known(), left_out=3).conditions[0].message
    assert "3 more are not listed" in message
    assert "take the node out of a group" in message
    assert "not listed" not in status_of(known()).conditions[0].message


def test_a_disk_that_is_the_kubelets_too_has_a_condition_and_is_ready() -> None:
    shared = Sharing(frozenset({FileSystem.NODEFS}), SharedBy.ASSUMED)
    size = {"capacity": DISK.capacity, "available": DISK.available, "used": DISK.used}
    bound = bound_of(DEFAULT_THRESHOLDS, shared, **size)
    status = status_of(known(manifest=WHOLE), disk=replace(DISK, kubelet=bound))
    ready, disk = status.conditions
    assert (ready.status, ready.reason) == ("True", "AllCached")
    assert (disk.type, disk.status, disk.reason) == ("DiskShared", "True", "DefaultThresholds")
    assert disk.message.startswith(
        "the agent's root is assumed to be on the kubelet's nodefs (else set "
        "--kubelet-file-systems), with nodefs.available=10% (the documented defaults;"
    )
    assert "leave 12% (12Gi) of this file system available" in disk.message
    # The disk fills, and the condition says the same.
    size["available"] -= 1 << 30
    fuller = bound_of(DEFAULT_THRESHOLDS, shared, **size)
    after = status_of(
        known(manifest=WHOLE),
        disk=replace(DISK, kubelet=fuller),
        previous=status.conditions,
        now=LATER,
    )
    assert not is_news(status, after)
    given = bound_of(parse_thresholds("nodefs.available=20Gi"), shared, **size)
    again = status_of(known(manifest=WHOLE), disk=replace(DISK, kubelet=given))
    assert again.conditions[1].reason == "GivenThresholds"
    assert "leave 22% (22Gi)" in again.conditions[1].message


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        (("KubeletThreshold",), "KubeletThreshold"),
        (("KubeletThreshold", "CapacityFull"), "CapacityFull"),
    ],
)
def test_ready_says_that_the_kubelets_threshold_is_near(
    reasons: tuple[str, ...], told: str
) -> None:
    models = [local_model(f"m{n}", f"s3://bucket/{n}") for n in range(len(reasons))]
    asked = wanted(*models)
    rows = {key: Row(key, wish) for key, wish in asked.wishes.items()}
    waiting = {
        model.key: Waiting(reason, "why") for model, reason in zip(models, reasons, strict=True)
    }
    table = Table(0.0, 60.0, 2, asked, rows, disk=DISK)
    status = StatusBuilder().build(table, waiting, (), (), NOW)
    assert (status.conditions[0].status, status.conditions[0].reason) == ("False", told)


def test_the_hash_of_a_manifest_is_computed_once_for_each_content() -> None:
    hashes = ManifestHashes()
    first, found = hashes.of(VERIFIABLE), verified(VERIFIABLE)
    assert found is not None
    assert first == found.hash
    # Each look at the disk reads the manifest anew.
    read_again = Manifest.decode(VERIFIABLE.encode())
    assert hashes.of(read_again) is first
    changed = make_manifest(
        URI, [structs.replace(VERIFIABLE.files[0], version="v2")], access=ACCESS
    )
    assert hashes.of(changed) not in {first, None}
    # Of files without a digest, or without a version at their origin, there is none.
    assert hashes.of(make_manifest(URI, [ManifestFile("w", 5, version="v")], access=ACCESS)) is None
    assert hashes.of(WHOLE) is None


def test_where_the_bytes_of_a_copy_came_from() -> None:
    told = structs.replace(VERIFIABLE, origin_bytes=2, peer_bytes=3)
    (entry,) = status_of(known(manifest=told)).models
    assert (entry.origin_bytes, entry.peer_bytes) == (2, 3)
    # The groups of this node exchange nothing.
    assert entry.manifest_hash is None
    # An older agent has not counted.
    (entry,) = status_of(known(manifest=VERIFIABLE)).models
    assert (entry.origin_bytes, entry.peer_bytes) == (None, None)


def test_where_the_agent_serves_its_peers_is_news() -> None:
    def status(fingerprint: str) -> LocalModelNodeStatus:
        peer = AgentPeer(address="10.0.0.7:8089", fingerprint=fingerprint * 64)
        table = Table(0.0, 60.0, 2, wanted(MODEL), {}, disk=DISK)
        return StatusBuilder(peer).build(table, {}, (), (), NOW)

    assert status("a").peer == AgentPeer(address="10.0.0.7:8089", fingerprint="a" * 64)
    assert status_of().peer is None
    assert is_news(status("a"), status("b"))
    assert not is_news(status("a"), status("a"))
