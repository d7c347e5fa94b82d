"""LocalModelNode.status from the rows of a step. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent.control import reasons
from agent.control.disk_shared import disk_shared
from agent.control.manifest_hashes import ManifestHashes
from agent.control.rows import Row
from agent.control.wanted import NOTHING_WANTED
from agent.structs.failures import NODE_KINDS, DownloadError, FailureKind, encodable
from agent.structs.sizes import EvictionReason
from crds.conditions import Finding, conditions
from crds.node import LocalModelNodeStatus, NodeDisk, NodeModelStatus
from crds.quantity import format_quantity
from crds.states import ModelState, kserve_model_status

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from agent.control.eviction_requests import Kept
    from agent.control.rows import Table
    from agent.control.waiting import Waiting
    from agent.control.wanted import Entry, Wanted
    from agent.structs.manifest import CacheName, Manifest
    from agent.structs.records import Evicted
    from agent.structs.requests import Failure, Requester, Transfer
    from crds.base import Condition, Identity
    from crds.peers import AgentPeer

READY = "Ready"
FOREIGN_DIRECTORIES = "ForeignDirectories"
DISK_READY = "DiskReady"

NONE_KEPT: Mapping[str, Kept] = MappingProxyType({})

_MAX_MESSAGE = 1024
_MAX_NAMED = 10
# In the order of the message.
_COUNTED = {
    ModelState.DOWNLOADING: "downloading",
    ModelState.FAILED: "failed",
    ModelState.PENDING: "pending",
    ModelState.EVICTED: "evicted",
}
_CHECKING = (
    "another cache with this sourceModelUri has a copy here, and the source is asked whether it "
    "gives this one the same"
)
_AFTER_CLUSTER_CACHE = (
    "a LocalModelCache with this sourceModelUri is on this node, and only its source fills the "
    "folder that both have: this one follows once it is there; or make a cache with another "
    "sourceModelUri"
)
_AFTER_OLDER_CACHE = (
    "an older cache of another namespace has this sourceModelUri, and only its source fills the "
    "folder that both have: this one follows if its own source has the same; or make a cache with "
    "another sourceModelUri"
)
_OTHERS = (
    "other caches have this sourceModelUri too, and their copy is not here now; once it is, the "
    "source is asked whether it gives this one the same"
)
_UNASKED = (
    "it came from other nodes of the group alone, as its origin could not be asked: the manifest "
    "of their copies says that it is the model"
)
# For requesters that may not learn what was here, nor who else requests it.
_WAITS = "it does not fit beside what is here, and nothing more can go for it now"
_WENT = "it made room, and comes back when something refers to it"
_WENT_BY_REQUEST = "its eviction was requested, and it comes back when something refers to it"
_RETURNS = "it was evicted, and comes back: a pod or a service refers to it"
_NO_LOOK = (
    "the copy on the disk cannot be read; it is left alone, and looked at again by itself: have "
    "the node's disk and the agent's limits checked"
)
_NO_VIEW = (
    "the copy is here, and its volume does not show all of it yet: its files are being linked there"
)
# Fields that change as a download goes on, or a pod runs: no state has changed.
_PROGRESS_FIELDS = (
    *("downloaded_bytes", "bytes_per_second", "attempts", "next_retry_time"),
    *("estimated_completion_time", "disk_bytes", "last_used_time", "pods"),
)


@dataclass(frozen=True)
class Outlook:
    """What the plan and the disk mean for the entries of one row.

    `waiting` says why the download waits for room or for a place. `awaits_turn`: the download does
    not begin before the node's turn. `disk_failure` is what is wrong with the disk as a whole.
    `kept` says why the copy stays although its eviction was requested. `exchanges`: the nodes of
    the group compare the manifests of their copies.
    """

    waiting: Waiting | None = None
    awaits_turn: bool = False
    disk_failure: DownloadError | None = None
    kept: Kept | None = None
    exchanges: bool = False


NO_OUTLOOK = Outlook()


class StatusBuilder:
    """Makes the status of a table: an entry anew only where its row or its outlook has changed.

    `peer` is where the agent serves the agents of other nodes; None: nowhere.
    """

    def __init__(self, peer: AgentPeer | None = None) -> None:
        self._peer = peer
        self._hashes = ManifestHashes()
        # By key, namespace and name. Only the entries of the last status are kept.
        self._made: dict[Identity, tuple[Row, Outlook, NodeModelStatus]] = {}

    def build(
        self,
        table: Table,
        waiting: Mapping[str, Waiting],
        suspended: Collection[str],
        previous: Sequence[Condition],
        now: datetime,
        *,
        kept: Mapping[str, Kept] = NONE_KEPT,
    ) -> LocalModelNodeStatus:
        """The status of what is wanted, and of what is there or on its way.

        `waiting`, `suspended` and `kept` are by key, as planned. Conditions keep their transition
        time from `previous` while they do not flip.
        """
        wanted = table.wanted or NOTHING_WANTED
        models = self._models(table, wanted, waiting, suspended, kept)
        listed, leaving = models[: len(wanted.entries)], models[len(wanted.entries) :]
        return LocalModelNodeStatus(
            observed_generation=wanted.generation,
            conditions=conditions(
                _findings(table, wanted, listed, leaving),
                observed=previous,
                generation=wanted.generation,
                now=now,
            ),
            model_status={
                f"{model.namespace}/{model.name}" if model.namespace else model.name: (
                    kserve_model_status(model.state)
                )
                for model in listed
            },
            models=models,
            disk=NodeDisk(
                capacity=format_quantity(table.disk.capacity),
                used=format_quantity(table.disk.used),
                available=format_quantity(table.disk.available),
            ),
            peer=self._peer,
        )

    def _models(
        self,
        table: Table,
        wanted: Wanted,
        waiting: Mapping[str, Waiting],
        suspended: Collection[str],
        kept: Mapping[str, Kept],
    ) -> tuple[NodeModelStatus, ...]:
        usual = Outlook(disk_failure=table.disk_failure)
        outlooks = {
            key: Outlook(waiting.get(key), key in suspended, table.disk_failure, kept.get(key))
            for key in {*waiting, *suspended, *kept}
        }
        before, self._made = self._made, {}
        for entry in wanted.entries:
            row, outlook = table.row(entry.key), outlooks.get(entry.key, usual)
            if entry.model.node_group in wanted.exchanging:
                outlook = replace(outlook, exchanges=True)
            known = before.get(entry.identity)
            if known is None or known[0] is not row or known[1] != outlook:
                known = (
                    row,
                    outlook,
                    self._with_hash(row, outlook, entry_status(entry, row, outlook)),
                )
            self._made[entry.identity] = known
        for row in sorted(filter(_is_leaving, table.rows.values()), key=lambda row: row.key):
            for name in row.owners:
                identity = (row.key, name.namespace, name.name)
                known = before.get(identity)
                if known is None or known[0] is not row:
                    known = (row, usual, _leaving(row, name))
                self._made[identity] = known
        self._hashes.retain(table.rows)
        return tuple(model for _, _, model in self._made.values())

    def _with_hash(self, row: Row, outlook: Outlook, status: NodeModelStatus) -> NodeModelStatus:
        if not outlook.exchanges or not status.cached or row.manifest is None:
            return status
        return status.model_copy(update={"manifest_hash": self._hashes.of(row.manifest)})


def _is_leaving(row: Row) -> bool:
    return row.is_present and not row.is_wanted


def is_news(before: LocalModelNodeStatus, after: LocalModelNodeStatus) -> bool:
    """Whether statuses differ in more than the progress of downloads and the use of the disk."""
    if len(before.models) != len(after.models):
        return True
    rest, blank = {"models": (), "disk": None}, dict.fromkeys(_PROGRESS_FIELDS)
    if before.model_copy(update=rest) != after.model_copy(update=rest):
        return True
    return any(
        one is not other and one.model_copy(update=blank) != other.model_copy(update=blank)
        for one, other in zip(before.models, after.models, strict=True)
    )


def with_former_pods(
    status: LocalModelNodeStatus, before: LocalModelNodeStatus
) -> LocalModelNodeStatus:
    """The status with the former counts of pods: for as long as nobody knows the node's pods."""
    counts = {model.identity: model.pods for model in before.models}
    models = tuple(
        model.model_copy(update={"pods": counts.get(model.identity, 0)}) for model in status.models
    )
    return status.model_copy(update={"models": models})


def entry_status(entry: Entry, row: Row, outlook: Outlook) -> NodeModelStatus:
    """The status of one entry: what its cache may know of the row."""
    hindered = entry.refusal or (_unreadable(entry, row) if row.copy.is_unreadable else None)
    if hindered is not None:
        return _failed(entry, hindered)
    if not row.is_for(entry.requester):
        return _not_given(entry, row, outlook)
    return _on_disk(entry, row, outlook).model_copy(update=_use(row, entry.cache.namespace))


def _use(row: Row, namespace: str) -> dict[str, object]:
    """The use of the disk and by pods, as a cache of this namespace may know it."""
    copy = row.copy
    usage = copy.usage
    used = usage.last_used_time if usage else None
    return {
        "disk_bytes": copy.tree_bytes + copy.staged_bytes or None,
        # While a pod mounts it, each write would differ otherwise.
        "last_used_time": used.replace(second=0, microsecond=0) if used else None,
        "pods": row.pods_of[namespace] if namespace else len(row.pods or ()),
        "downloaded_time": usage.published_time if usage and copy.is_published else None,
        "last_download_seconds": usage.download_seconds if usage else None,
    }


def _on_disk(entry: Entry, row: Row, outlook: Outlook) -> NodeModelStatus:
    manifest = row.manifest
    if row.notice is not None and manifest is not None:
        return _for_capacity(entry, row.notice, None, None)
    is_served = manifest is not None and not row.copy.lacks_view
    if manifest is not None and is_served and entry.model.hash in {None, manifest.hash}:
        return _model(
            entry,
            ModelState.DOWNLOADED,
            size=manifest.size,
            hash=manifest.hash,
            verified_time=row.copy.verified_time,
            origin_bytes=manifest.origin_bytes,
            peer_bytes=manifest.peer_bytes,
            store_digests=bool(manifest.peer_bytes) and not manifest.by_manifest,
            **(_kept(entry, row, outlook.kept) or _unasked(manifest)),
        )
    if outlook.disk_failure is not None and row.transfer is None:
        return _failed(entry, outlook.disk_failure)
    return _on_its_way(entry, row, outlook)


def _unasked(manifest: Manifest) -> dict[str, str]:
    """That a copy came from peers alone."""
    if manifest.origin_asked:
        return {}
    return {"reason": reasons.ORIGIN_NOT_ASKED, "message": _UNASKED}


def _kept(entry: Entry, row: Row, kept: Kept | None) -> dict[str, str]:
    """Why a copy is still here whose eviction was requested."""
    if kept is None:
        return {}
    # The pod may be of another namespace.
    is_shared = row.request is not None and row.namespaces != {entry.cache.namespace}
    why = kept.public if entry.cache.namespace and is_shared else kept.why
    message = f"its eviction was requested at {kept.asked:%Y-%m-%dT%H:%M:%SZ}, and waits: {why}"
    return {"reason": reasons.EVICTION_REQUESTED, "message": message[:_MAX_MESSAGE]}


def _not_given(entry: Entry, row: Row, outlook: Outlook) -> NodeModelStatus:
    """The status of an entry that may not know the copy, nor what downloads it.

    Nothing is reported but the requester's own attempts.
    """
    requester = entry.requester
    transfer, failure = row.transfer, row.failures.get(requester)
    if transfer is not None and transfer.requester == requester:
        own = Row(row.key, transfer=transfer, retries=row.retries)
        return _on_its_way(entry, own, NO_OUTLOOK)
    suspended = row.request.suspended if row.request and not row.is_awaited else ()
    is_suspended = requester in suspended
    is_past = transfer is not None and failure is not None and failure.error.kind in NODE_KINDS
    if failure is not None and not is_past and not is_suspended:
        return _failed(
            entry, failure.error, attempts=failure.attempts, next_retry_time=failure.retry_time
        )
    if outlook.awaits_turn or (is_suspended and transfer is None):
        return _awaiting_turn(entry, failure)
    state, reason, message = _why_not(requester, row, outlook)
    return _model(entry, state, reason=reason, message=message)


def _why_not(requester: Requester, row: Row, outlook: Outlook) -> tuple[ModelState, str, str]:
    """State, reason and message of an entry that has no copy, and whose source said nothing yet."""
    evicted = row.copy.evicted
    if row.manifest is not None:
        return ModelState.PENDING, reasons.CHECKING_ACCESS, _CHECKING
    if outlook.waiting is not None:
        return ModelState.PENDING, outlook.waiting.reason, _WAITS
    if evicted is not None and not row.referrer:
        is_requested = evicted.reason is EvictionReason.REQUESTED
        told = _WENT_BY_REQUEST if is_requested else _WENT
        return ModelState.EVICTED, evicted.reason.value, told
    if requester.namespace and "" in row.namespaces:
        return ModelState.PENDING, reasons.AWAITING_CLUSTER_CACHE, _AFTER_CLUSTER_CACHE
    if row.request is not None and not row.request.decides(requester):
        return ModelState.PENDING, reasons.AWAITING_OLDER_CACHE, _AFTER_OLDER_CACHE
    return ModelState.PENDING, reasons.CHECKING_ACCESS, _OTHERS


def _on_its_way(entry: Entry, row: Row, outlook: Outlook) -> NodeModelStatus:
    manifest, transfer = row.manifest, row.transfer
    failure = row.failures.get(entry.requester)
    # A retry is no news before the source has answered it: no flapping between the two states.
    # Nor is that of another requester, unless the node was what had failed.
    if transfer is not None and (
        failure is None
        or (
            transfer.listed
            and (transfer.requester == entry.requester or failure.error.kind in NODE_KINDS)
        )
    ):
        return _model(
            entry,
            ModelState.DOWNLOADING,
            size=transfer.total,
            downloaded_bytes=transfer.done,
            bytes_per_second=transfer.bytes_per_second,
            estimated_completion_time=transfer.completion_time,
            attempts=failure.attempts if failure else None,
            **(_adopting(transfer) or _damage(row) or _returning(entry, row)),
        )
    if outlook.waiting is not None or (row.copy.evicted is not None and not row.referrer):
        return _for_capacity(entry, row.copy.evicted, outlook.waiting, failure)
    if outlook.awaits_turn:
        return _awaiting_turn(entry, failure)
    if failure is not None:
        return _failed(
            entry, failure.error, attempts=failure.attempts, next_retry_time=failure.retry_time
        )
    if manifest is not None:
        return _not_served(entry, row, manifest)
    return _model(entry, ModelState.PENDING, **(_damage(row) or _returning(entry, row)))


def _awaiting_turn(entry: Entry, failure: Failure | None) -> NodeModelStatus:
    """The status while other nodes download first; an earlier failure is reported with it."""
    name = entry.cache.node_group
    group = f"LocalModelNodeGroup {name}" if name else "its node group"
    message = (
        f"other nodes of {group} download first: its download.maxConcurrentNodes is reached; this "
        "node begins by itself when its turn comes"
    )
    return _model(
        entry,
        ModelState.PENDING,
        reason=reasons.AWAITING_TURN,
        message=f"{message}{_last_try(failure)}"[:_MAX_MESSAGE],
        attempts=failure.attempts if failure else None,
    )


def _for_capacity(
    entry: Entry, evicted: Evicted | None, waiting: Waiting | None, failure: Failure | None
) -> NodeModelStatus:
    """The status of a model that waits for room or for a place, or has made room."""
    if waiting is None:
        assert evicted is not None  # noqa: S101
        return _model(
            entry,
            ModelState.EVICTED,
            reason=evicted.reason.value,
            message=evicted.message[:_MAX_MESSAGE],
        )
    return _model(
        entry,
        ModelState.PENDING,
        reason=waiting.reason,
        message=f"{waiting.message}{_last_try(failure)}"[:_MAX_MESSAGE],
        attempts=failure.attempts if failure else None,
    )


def _last_try(failure: Failure | None) -> str:
    if failure is None:
        return ""
    return f". The last try failed: {failure.error.kind.value}: {failure.error.message}"


def _adopting(transfer: Transfer) -> dict[str, str]:
    if not transfer.adopting:
        return {}
    message = (
        "a folder that localmodel did not make is in its place; it is compared with the source, "
        "and used if it is the model"
    )
    return {"reason": reasons.ADOPTING, "message": message}


def _returning(entry: Entry, row: Row) -> dict[str, str]:
    if row.copy.evicted is None or not row.referrer:
        return {}
    # The pod may be of another namespace.
    is_shared = row.request is not None and row.namespaces != {entry.cache.namespace}
    told = f"it was evicted, and comes back: {row.referrer} refers to it"
    message = _RETURNS if entry.cache.namespace and is_shared else told
    return {"reason": reasons.REFERENCED, "message": message[:_MAX_MESSAGE]}


def _not_served(entry: Entry, row: Row, manifest: Manifest) -> NodeModelStatus:
    """The status where the copy has no view, another hash than the entry asks for, or none yet."""
    if row.copy.lacks_view:
        return _model(entry, ModelState.PENDING, reason=reasons.MAKING_VIEW, message=_NO_VIEW)
    if manifest.hash is None:
        return _model(
            entry,
            ModelState.PENDING,
            size=manifest.size,
            reason=reasons.HASHING,
            message="the copy is here, and its hash is being computed",
        )
    return _model(
        entry,
        ModelState.FAILED,
        size=manifest.size,
        hash=manifest.hash,
        reason=reasons.CORRUPT,
        message=f"the copy on the disk has the hash {manifest.hash} and serves another cache "
        f"with the same sourceModelUri; this one expects {entry.model.hash}: correct spec.hash",
    )


def _damage(row: Row) -> dict[str, str]:
    problem = row.copy.problem
    if not problem:
        return {}
    message = f"the copy on the disk is damaged ({problem}); its bad files are fetched again"
    return {"reason": reasons.CORRUPT, "message": message[:_MAX_MESSAGE]}


def _unreadable(entry: Entry, row: Row) -> DownloadError:
    if entry.cache.namespace:
        # Whose copy this is cannot be read either.
        return DownloadError(FailureKind.INTERNAL, _NO_LOOK)
    return DownloadError(
        FailureKind.INTERNAL,
        f"the copy on the disk cannot be read ({row.copy.problem}); it is left alone, and looked "
        "at again by itself: check the node's disk and the agent's limits",
    )


def _failed(entry: Entry, error: DownloadError, **fields: object) -> NodeModelStatus:
    return _model(
        entry,
        ModelState.FAILED,
        reason=error.kind.value,
        message=error.message[:_MAX_MESSAGE],
        **fields,
    )


def _model(entry: Entry, state: ModelState, **fields: object) -> NodeModelStatus:
    return NodeModelStatus.model_validate(
        {
            "key": entry.key,
            "name": entry.cache.name,
            "namespace": entry.cache.namespace,
            "state": state,
            "cached": state is ModelState.DOWNLOADED,
            **fields,
        }
    )


def _leaving(row: Row, name: CacheName) -> NodeModelStatus:
    is_granted = name.namespace in row.granted.namespaces
    manifest = row.manifest if is_granted else None
    return NodeModelStatus(
        key=row.key,
        name=name.name,
        namespace=name.namespace,
        state=ModelState.REMOVING,
        cached=manifest is not None,
        size=manifest.size if manifest else None,
        hash=manifest.hash if manifest else None,
    ).model_copy(update=_use(row, name.namespace) if is_granted else {})


def _findings(
    table: Table,
    wanted: Wanted,
    listed: Sequence[NodeModelStatus],
    leaving: Sequence[NodeModelStatus],
) -> list[Finding]:
    # An evicted model is as it should be: nobody needs it now.
    ready = all(model.cached or model.state is ModelState.EVICTED for model in listed)
    reason, message = _readiness(listed)
    if leaving:
        message += f", {len(leaving)} to be removed"
    if wanted.left_out:
        message += (
            f"; {wanted.left_out} more are not listed, since this object has no room for them: "
            "take the node out of a group"
        )
    findings = [Finding(READY, "True" if ready else "False", reason, message)]
    if table.disk_failure is not None:
        failure = table.disk_failure
        findings.append(Finding(DISK_READY, "False", failure.kind.value, failure.message))
    elif (linkless := _linkless(table)) is not None:
        findings.append(Finding(DISK_READY, "False", linkless.kind.value, linkless.message))
    if table.disk.kubelet is not None:
        findings.append(disk_shared(table.disk.kubelet))
    if table.foreign:
        findings.append(
            Finding(FOREIGN_DIRECTORIES, "True", reasons.FOUND, _foreign_message(table.foreign))
        )
    return findings


def _linkless(table: Table) -> DownloadError | None:
    """The failure of a model whose files cannot be linked into its volume."""
    failures = (one.error for row in table.rows.values() for one in row.failures.values())
    return next((error for error in failures if error.kind is FailureKind.NO_LINKS), None)


def _readiness(wanted: Sequence[NodeModelStatus]) -> tuple[str, str]:
    """Reason and message of Ready: what `kubectl get` shows."""
    if not wanted:
        return reasons.NOTHING_WANTED, "no models wanted"
    cached = sum(model.cached for model in wanted)
    noun = "model" if len(wanted) == 1 else "models"
    message = f"{cached} of {len(wanted)} {noun} cached"
    counts = Counter(model.state for model in wanted)
    message += "".join(
        f", {counts[state]} {word}" for state, word in _COUNTED.items() if counts[state]
    )
    failed = next((model for model in wanted if model.state is ModelState.FAILED), None)
    if failed is not None:
        return failed.reason or reasons.FAILED, f"{message} ({failed.name}: {failed.reason})"
    if counts[ModelState.DOWNLOADING]:
        return reasons.DOWNLOADING, message
    pending = {model.reason for model in wanted if model.state is ModelState.PENDING}
    for reason in reasons.NO_ROOM:
        if reason in pending:
            return reason, message
    if pending:
        return reasons.PENDING, message
    return reasons.ALL_CACHED, message


def _foreign_message(names: Sequence[str]) -> str:
    listed = encodable(", ".join(names[:_MAX_NAMED])) + (", …" if len(names) > _MAX_NAMED else "")
    what = "entry" if len(names) == 1 else "entries"
    return (
        f"models/ has {len(names)} {what} that localmodel did not make and leaves alone ({listed}):"
        " move them away if their space is needed"
    )
