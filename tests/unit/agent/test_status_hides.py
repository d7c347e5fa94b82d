"""Nothing of a copy reaches the entry of a cache that may not have it, whatever state it is in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import structs

from agent.control.eviction_requests import Kept
from agent.control.rows import Row, Table
from agent.control.status import Outlook, StatusBuilder, entry_status
from agent.control.waiting import Waiting
from agent.control.wanted import NO_WISH, Wanted, Wish
from agent.disk.on_disk import Found
from agent.structs.credentials import CredentialRef
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.grants import first_access, grant_for
from agent.structs.manifest import CacheName
from agent.structs.records import Evicted
from agent.structs.remote import RemoteFile
from agent.structs.requests import Failure, Request, Requester, Transfer
from agent.structs.sizes import EvictionReason
from tests.unit.agent.helpers import local_model, manifest_of
from tests.unit.agent.rows import POD, row, wanted

if TYPE_CHECKING:
    from agent.structs.manifest import Access

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
URI = "s3://bucket/model"
# What is told of the victim's copy, its pods and its other caches: each of these is recognised.
SIZE, DISK, DONE, SPEED = 7_770_001, 7_770_002, 7_770_003, 7_770_004
SECRET = ("7770", "weights.bin", "sha256:", "2026-07", "victim", "pod")
WHOLE = structs.replace(manifest_of(URI, {"weights.bin": b"w"}), size=SIZE)
VICTIM = Requester("victim", CredentialRef(service_account="reader"))
ADMIN = Requester()
ALLOWED = {"key", "name", "namespace", "state", "cached", "reason", "message", "attempts"}
ALLOWED |= {"nextRetryTime"}


class Listing:
    files = (RemoteFile("weights.bin", "weights.bin", SIZE, "v1"),)
    origin = "https://victim.example"


def access_of(*requesters: Requester) -> Access:
    first = first_access(Listing(), requesters[0])
    return structs.replace(first, grants=tuple(map(grant_for, requesters)))


def failure(kind: FailureKind, text: str) -> Failure:
    return Failure(DownloadError(kind, text), 2, NOW + timedelta(minutes=5))


def flags() -> st.SearchStrategy[bool]:
    return st.booleans()


class Known(NamedTuple):
    """What is known of the model, and what becomes of it."""

    row: Row
    waiting: Waiting | None = None
    awaits_turn: bool = False
    disk_failure: DownloadError | None = None


def asked_by(
    *requesters: Requester,
    suspended: frozenset[Requester] = frozenset(),
    deciders: frozenset[Requester] | None = None,
) -> Wish:
    request = Request(
        WHOLE.key, URI, (), requesters=requesters, suspended=suspended, deciders=deciders
    )
    return Wish((), request)


@st.composite
def copies(draw: st.DrawFn) -> Known:
    """A copy of the victim's, or of the administrator's, in any state."""
    holder = draw(st.sampled_from([VICTIM, ADMIN]))
    others = draw(st.sampled_from([(), (ADMIN,), (VICTIM,)]))
    access = access_of(holder)
    whole = draw(flags())
    known = row(
        key=WHOLE.key,
        wish=asked_by(
            *dict.fromkeys((holder, *others)),
            THIEF,
            suspended=draw(st.sampled_from([frozenset(), frozenset({THIEF})])),
            deciders=draw(st.sampled_from([None, frozenset({holder})])),
        ),
        manifest=structs.replace(WHOLE, access=access) if whole else None,
        access=access,
        problem="" if whole or draw(flags()) else "weights.bin has 7770001 bytes",
        unreadable=not whole and draw(flags()),
        transfer=draw(
            st.none()
            | st.builds(
                Transfer,
                st.just(DONE),
                st.just(SIZE),
                st.just(SPEED),
                listed=flags(),
                adopting=flags(),
                requester=st.just(holder),
            )
        ),
        failures=draw(
            st.fixed_dictionaries(
                {holder: st.just(failure(FailureKind.NOT_FOUND, "victim's own: weights.bin"))},
                optional={THIEF: st.just(failure(FailureKind.DENIED, "not for you"))},
            )
        ),
        disk_bytes=DISK,
        last_used=datetime(2026, 7, 1, tzinfo=UTC),
        evicted=draw(st.none() | st.just(EVICTED)),
        pods=draw(st.sampled_from([(), (replace(POD, namespace="victim"),)])),
    )
    return Known(
        known,
        waiting=draw(st.none() | st.just(Waiting("CapacityFull", "it needs 7770001"))),
        awaits_turn=draw(flags()),
        disk_failure=draw(
            st.none() | st.just(DownloadError(FailureKind.READ_ONLY, "the disk is read-only"))
        ),
    )


THIEF = Requester("thief", CredentialRef(service_account="default"))
EVICTED = Evicted(
    time=NOW,
    size=SIZE,
    reason=EvictionReason.MADE_ROOM,
    message="7770001 were freed for victim/other; last used at 2026-07-01",
)


@given(copies(), st.sampled_from(["thief", ""]))
def test_an_entry_without_a_grant_tells_its_own_attempts_alone(
    known: Known, namespace: str
) -> None:
    if not namespace:
        # The administrator's, where the copy is a namespace's.
        row, copy, access = known.row, known.row.copy, access_of(VICTIM)
        manifest = copy.manifest and structs.replace(copy.manifest, access=access)
        found = Found.NOTHING if copy.is_unreadable else copy.found
        copy = replace(copy, manifest=manifest, held=access, found=found)
        transfer = row.transfer and replace(row.transfer, requester=VICTIM)
        known = known._replace(row=replace(row, copy=copy, transfer=transfer))
    _check_hidden(known, namespace)
    entry = _entry(known, namespace)
    assert entry["cached"] is False
    assert entry["state"] in {"Pending", "Failed", "Evicted"}


@given(copies())
def test_what_goes_is_told_to_those_who_had_it(known: Known) -> None:
    assume(known.row.is_present)
    owners = (CacheName(name="mine", namespace="thief"),)
    gone = known._replace(row=replace(known.row, wish=NO_WISH, owners=owners))
    (entry,) = _models(gone, wanted())
    assert entry.keys() <= ALLOWED
    assert entry["cached"] is False


@pytest.mark.parametrize("asking", [VICTIM, ADMIN])
def test_a_first_download_is_told_to_who_asks_for_it(asking: Requester) -> None:
    transfer = Transfer(DONE, SIZE, SPEED, listed=True, requester=asking)
    known = row(key=WHOLE.key, transfer=transfer, wish=asked_by(asking, THIEF))
    _check_hidden(Known(known), "thief")


def _check_hidden(known: Known, namespace: str) -> None:
    entry = _entry(known, namespace)
    assert entry.keys() <= ALLOWED
    assert not [text for text in SECRET if text in str(entry.get("message", "")).replace(*_POD)]


# Of a sentence that names none.
_POD = ("a pod or a service", "")


def _entry(known: Known, namespace: str) -> dict[str, object]:
    mine = local_model("mine", URI, namespace=namespace, service_account_name="default")
    (entry,) = _models(known, wanted(mine))
    return entry


def _models(known: Known, asked: Wanted) -> list[dict[str, object]]:
    table = Table(0.0, 60.0, 2, asked, {WHOLE.key: known.row}, disk_failure=known.disk_failure)
    waiting = {WHOLE.key: known.waiting} if known.waiting else {}
    suspended = {WHOLE.key} if known.awaits_turn else set()
    status = StatusBuilder().build(table, waiting, suspended, (), NOW)
    found: list[dict[str, object]] = status.to_json()["models"]
    return found


@pytest.mark.parametrize("shared", [True, False])
def test_why_a_copy_is_not_evicted_names_no_pod_of_another_namespace(shared: bool) -> None:
    namespaces = ("victim", "other") if shared else ("victim",)
    models = [local_model(f"of-{one}", URI, namespace=one) for one in namespaces]
    (wish,) = wanted(*models).wishes.values()
    manifest = structs.replace(
        WHOLE, access=access_of(*(entry.requester for entry in wish.entries))
    )
    found = row(manifest=manifest, wish=wish, pods=[POD])
    kept = Kept(NOW, "the pod team/server uses it", "a pod uses it")
    for entry in wish.entries:
        status = entry_status(entry, found, Outlook(kept=kept))
        assert (status.state, status.reason) == ("Downloaded", "EvictionRequested")
        assert status.message is not None
        assert ("team/server" in status.message) is not shared
        assert "its eviction was requested at 2026-08-01T12:00:00Z, and waits" in status.message
