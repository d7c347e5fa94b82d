"""Rows and tables for tests of what is decided by them, and reported of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent.capacity.ledger import Ledger
from agent.capacity.places import Hold
from agent.cluster.pod_mounts import PodUse
from agent.control.model_retries import Retry
from agent.control.rows import Row, Table
from agent.control.wanted import Wanted, Wish, wanted_of
from agent.disk.on_disk import Found, OnDisk
from agent.structs.failures import DownloadError, FailureKind
from agent.structs.records import Evicted, Usage
from agent.structs.requests import Failure, Request, Requester, Transfer
from agent.structs.sizes import EvictionReason
from crds.node import LocalModelNode
from tests.unit.agent.helpers import local_model, manifest_of, node_object

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from agent.structs.manifest import Access, Manifest
    from crds.node import LocalModel

POD = PodUse("team", "server", "u")
WAITING = replace(POD, waits=True)
EVICTED = Evicted(
    time=datetime(2026, 8, 1, 12, tzinfo=UTC), size=1, reason=EvictionReason.MADE_ROOM, message=""
)
WHOLE = manifest_of("mem://any", {"w": b"x"})
FAILURE = Failure(DownloadError(FailureKind.NOT_FOUND, "it is not there"), 1, EVICTED.time)


def wanted(*models: LocalModel, **fields: Any) -> Wanted:
    """What a LocalModelNode with these entries asks for."""
    return wanted_of(LocalModelNode.model_validate(node_object(*models, **fields)))


def wish(key: str, *, suspend: bool = False, refused: bool = False) -> Wish:
    """A wish of one LocalModelCache for this key, whatever its URI."""
    model = local_model(key, f"mem://{key}", suspend=suspend)
    (made,) = wanted(model).wishes.values()
    assert made.request is not None
    request = Request(key, made.request.uri, (), suspended=made.request.suspended)
    return Wish(made.entries, None if refused else request)


def retries(failures: Mapping[Requester, Failure], at: float = 0.0) -> dict[Requester, Retry]:
    """Failed attempts of these requesters, all due again at one time."""
    attempt = Request("key", "mem://any", ())
    return {one: Retry(attempt.by(one), failure, at) for one, failure in failures.items()}


def copy_of(
    manifest: Manifest | None = None,
    *,
    access: Access | None = None,
    problem: str = "",
    unreadable: bool = False,
    disk_bytes: int = 0,
    last_used: datetime | None = None,
    evicted: Evicted | None = None,
) -> OnDisk:
    """What is on the disk: a whole copy, a damaged or an unreadable one, or none any more."""
    found = Found.PUBLISHED if manifest else Found.DAMAGED if problem else Found.NOTHING
    return OnDisk(
        Found.UNREADABLE if unreadable else found,
        manifest,
        problem,
        tree_bytes=disk_bytes,
        usage=Usage(published_time=last_used, last_used_time=last_used) if last_used else None,
        evicted=evicted,
        held=access,
    )


def row(
    *,
    transfer: Transfer | None = None,
    failures: Mapping[Requester, Failure] | None = None,
    pods: Sequence[PodUse] = (),
    key: str = WHOLE.key,
    wish: Wish = Wish(),  # noqa: B008
    **copy: Any,
) -> Row:
    """A row of a copy as `copy_of` makes it."""
    return Row(
        key,
        wish,
        copy_of(**copy),
        transfer=transfer,
        retries=retries(failures or {}),
        pods=tuple(pods),
    )


def table(
    *,
    wanted: Collection[str] | None = (),
    ready: Collection[str] = (),
    published: Collection[str] = (),
    staged: Collection[str] = (),
    active: Collection[str] = (),
    cancelling: Collection[str] = (),
    refused: Collection[str] = (),
    suspended: Collection[str] = (),
    evicted: Collection[str] = (),
    mounted: Collection[str] | None = (),
    awaited: Collection[str] = (),
    retry_at: Mapping[str, float] | None = None,
    keep_until: Mapping[str, float] | None = None,
    now: float = 100.0,
    grace: float = 60.0,
    max_downloads: int = 2,
    **fields: Any,
) -> Table:
    """A table of keys in these states. `published` are whole if they are `ready`, else damaged."""
    retry_at, keep_until = retry_at or {}, keep_until or {}
    wishes = {
        key: wish(key, suspend=key in suspended, refused=key in refused) for key in wanted or ()
    }

    def copy(key: str) -> OnDisk:
        if key in ready:
            return OnDisk(Found.PUBLISHED, WHOLE)
        if key in published:
            return OnDisk(Found.DAMAGED, WHOLE, "it is damaged")
        found = Found.STAGED if key in staged else Found.NOTHING
        return OnDisk(found, evicted=EVICTED if key in evicted else None)

    keys = dict.fromkeys((*wishes, *sorted({*ready, *published, *staged, *active, *evicted})))
    rows = {
        key: Row(
            key,
            wishes.get(key, Wish()),
            copy(key),
            transfer=Transfer() if key in active else None,
            hold=Hold() if key in active else None,
            is_cancelling=key in cancelling,
            retries=retries({Requester(): FAILURE}, retry_at[key]) if key in retry_at else {},
            pods=None
            if mounted is None
            else (POD,) * (key in mounted) + (WAITING,) * (key in awaited),
            keep_until=keep_until.get(key),
        )
        for key in keys
    }
    fields = {"ledger": Ledger({key: row.holding for key, row in rows.items()}), **fields}
    return Table(
        now=now,
        grace=grace,
        max_downloads=max_downloads,
        wanted=None if wanted is None else Wanted(wishes=wishes),
        rows=rows,
        pods_known=mounted is not None,
        **fields,
    )
