"""Nothing of a copy reaches the entry of a cache that may not have it, whatever state it is in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.control.status import Copy, Facts, Waiting, build_status
from agent.structs.credentials import CredentialRef
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.grants import first_access, grant_for
from agent.structs.manifest import CacheName
from agent.structs.notes import Evicted
from agent.structs.remote import RemoteFile
from agent.structs.requests import Failure, Requester, Transfer
from agent.structs.sizes import EvictionReason
from tests.unit.agent.helpers import local_model, manifest_of

if TYPE_CHECKING:
    from agent.structs.manifest import Access

NOW = datetime(2026, 8, 1, 12, tzinfo=UTC)
URI = "s3://bucket/model"
# What is told of the victim's copy, its pods and its other caches: each of these is recognised.
SIZE, DISK, DONE, SPEED = 7_770_001, 7_770_002, 7_770_003, 7_770_004
SECRET = ("7770", "weights.bin", "sha256:", "2026-07", "victim", "pod")
WHOLE = manifest_of(URI, {"weights.bin": b"w"}).model_copy(update={"size": SIZE})
VICTIM = Requester("victim", CredentialRef(service_account="reader"))
ADMIN = Requester()
ALLOWED = {"key", "name", "namespace", "state", "cached", "reason", "message", "attempts"}
ALLOWED |= {"nextRetryTime"}


class Listing:
    files = (RemoteFile("weights.bin", "weights.bin", SIZE, "v1"),)
    origin = "https://victim.example"


def access_of(*requesters: Requester) -> Access:
    first = first_access(Listing(), requesters[0])
    return first.model_copy(update={"grants": tuple(map(grant_for, requesters))})


def failure(kind: FailureKind, text: str) -> Failure:
    return Failure(DownloadError(kind, text), 2, NOW + timedelta(minutes=5))


def flags() -> st.SearchStrategy[bool]:
    return st.booleans()


@st.composite
def copies(draw: st.DrawFn) -> Copy:
    """A copy of the victim's, or of the administrator's, in any state."""
    holder = draw(st.sampled_from([VICTIM, ADMIN]))
    others = draw(st.sampled_from([(), (ADMIN,), (VICTIM,)]))
    access = access_of(holder)
    whole = draw(flags())
    return Copy(
        manifest=WHOLE.model_copy(update={"access": access}) if whole else None,
        access=access,
        requesters=(*dict.fromkeys((holder, *others)), THIEF),
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
        waiting=draw(st.none() | st.just(Waiting("CapacityFull", "it needs 7770001"))),
        awaits_turn=draw(flags()),
        suspended=draw(st.sampled_from([frozenset(), frozenset({THIEF})])),
        evicted=draw(st.none() | st.just(EVICTED)),
        referrer=draw(st.sampled_from(["", "the pod victim/server"])),
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
def test_an_entry_without_a_grant_tells_its_own_attempts_alone(copy: Copy, namespace: str) -> None:
    mine = local_model("mine", URI, namespace=namespace, service_account_name="default")
    if not namespace:
        # The administrator's, where the copy is a namespace's.
        copy = replace(copy, access=access_of(VICTIM))
        if copy.manifest is not None:
            copy = replace(
                copy, manifest=copy.manifest.model_copy(update={"access": access_of(VICTIM)})
            )
        transfer = copy.transfer and replace(copy.transfer, requester=VICTIM)
        copy = replace(copy, transfer=transfer, unreadable=False)
    _check_hidden(copy, mine.namespace)
    entry = _entry(copy, namespace)
    assert entry["cached"] is False
    assert entry["state"] in {"Pending", "Failed", "Evicted"}


@given(copies())
def test_what_goes_is_told_to_those_who_had_it(copy: Copy) -> None:
    key = WHOLE.key
    facts = _facts(copy, wanted=())
    facts = replace(facts, leftover={key: (CacheName(name="mine", namespace="thief"),)})
    (entry,) = build_status(facts, (), NOW).to_json()["models"]
    assert entry.keys() <= ALLOWED
    assert entry["cached"] is False


@pytest.mark.parametrize("asking", [VICTIM, ADMIN])
def test_a_first_download_is_told_to_who_asks_for_it(asking: Requester) -> None:
    transfer = Transfer(DONE, SIZE, SPEED, listed=True, requester=asking)
    _check_hidden(Copy(transfer=transfer, requesters=(asking, THIEF)), "thief")


def _check_hidden(copy: Copy, namespace: str) -> None:
    entry = _entry(copy, namespace)
    assert entry.keys() <= ALLOWED
    assert not [text for text in SECRET if text in str(entry.get("message", "")).replace(*_POD)]


# Of a sentence that names none.
_POD = ("a pod or a service", "")


def _entry(copy: Copy, namespace: str) -> dict[str, object]:
    mine = local_model("mine", URI, namespace=namespace, service_account_name="default")
    (entry,) = build_status(_facts(copy, wanted=(mine,)), (), NOW).to_json()["models"]
    found: dict[str, object] = entry
    return found


def _facts(copy: Copy, wanted: tuple[object, ...]) -> Facts:
    return Facts(
        generation=1,
        wanted=wanted,  # type: ignore[arg-type]
        copies={WHOLE.key: copy},
        leftover={},
        foreign=(),
        capacity=1,
        used=1,
        available=1,
    )
