"""LocalModelNode.status from what the agent knows. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from agent.control.wanted import cache_name, refusal, requester_of
from agent.structs.failures import NODE_KINDS, DownloadError, FailureKind
from agent.structs.grants import Granted
from crds.conditions import Finding, conditions
from crds.node import LocalModelNodeStatus, NodeDisk, NodeModelStatus
from crds.quantity import format_quantity
from crds.states import ModelState, kserve_model_status

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from agent.structs.manifest import Access, CacheName, Manifest
    from agent.structs.notes import Evicted
    from agent.structs.requests import Failure, Requester, Transfer
    from crds.base import Condition
    from crds.node import LocalModel

READY = "Ready"
FOREIGN_DIRECTORIES = "ForeignDirectories"
DISK_READY = "DiskReady"

_MAX_MESSAGE = 1024
_MAX_NAMED = 10
# In the order in which a person wants to know.
_COUNTED = {
    ModelState.DOWNLOADING: "downloading",
    ModelState.FAILED: "failed",
    ModelState.PENDING: "pending",
    ModelState.EVICTED: "evicted",
}
CAPACITY_FULL = "CapacityFull"
PODS_UNKNOWN = "PodsUnknown"
REFERENCED = "Referenced"
ADOPTING = "Adopting"
CHECKING_ACCESS = "CheckingAccess"
AWAITING_TURN = "AwaitingTurn"
AWAITING_PLACE = "AwaitingPlace"
AWAITING_CLUSTER_CACHE = "AwaitingLocalModelCache"
AWAITING_OLDER_CACHE = "AwaitingOlderCache"
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
# For who may not know what was here, and who else asks for it.
_WAITS = "it does not fit beside what is here, and nothing more can go for it now"
_WENT = "it made room, and comes back when something refers to it"
_RETURNS = "it was evicted, and comes back: a pod or a service refers to it"
_NO_LOOK = (
    "the copy on the disk cannot be read; it is left alone, and looked at again by itself: have "
    "the node's disk and the agent's limits checked"
)
# What changes without anything having happened.
_PROGRESS_FIELDS = (
    *("downloaded_bytes", "bytes_per_second", "attempts", "next_retry_time"),
    *("disk_bytes", "last_used_time"),
)


@dataclass(frozen=True)
class Waiting:
    """Why a download waits for room or for a place: in one word, and in a message."""

    reason: str
    message: str


@dataclass(frozen=True)
class Copy:
    """What is known of one key.

    A published copy has a manifest. `access` says who may have one that is damaged, or that is to
    come back; `requesters` are all who ask for it, `deciding` those who fill it. `problem` says
    that it is damaged, or what keeps it from being read. `failures` are each requester's own.
    `referrer` names who refers to a model that was evicted; empty: nobody. `awaits_turn` is whether
    its download is not begun before the node's turn; a copy that is here is not asked about before
    that for the `suspended` requesters.
    """

    manifest: Manifest | None = None
    access: Access | None = None
    requesters: tuple[Requester, ...] = ()
    deciding: tuple[Requester, ...] = ()
    problem: str = ""
    unreadable: bool = False
    transfer: Transfer | None = None
    failures: Mapping[Requester, Failure] = field(default_factory=dict)
    disk_bytes: int = 0
    last_used: datetime | None = None
    waiting: Waiting | None = None
    awaits_turn: bool = False
    suspended: frozenset[Requester] = frozenset()
    evicted: Evicted | None = None
    referrer: str = ""
    disk_failure: DownloadError | None = None

    @cached_property
    def granted(self) -> Granted:
        """Who may have the copy that is here."""
        return Granted(self.manifest.access if self.manifest else self.access)

    @cached_property
    def namespaces(self) -> frozenset[str]:
        """Those of all who ask for it."""
        return frozenset(one.namespace for one in self.requesters)

    @property
    def is_known(self) -> bool:
        """Whether something of it is or was here, so that it has holders."""
        return self.manifest is not None or self.access is not None or bool(self.problem)

    def is_for(self, requester: Requester) -> bool:
        """Whether this requester may know what is known of it."""
        if self.is_known:
            return requester in self.granted
        # Nobody has it: what is told of it is of whoever asks alone.
        return not self.requesters or self.namespaces == {requester.namespace}


@dataclass(frozen=True)
class Facts:
    """All that a status is made of.

    `leftover` names the caches of what is still here and no longer wanted, by key. Sizes of the
    disk are bytes.
    """

    generation: int
    wanted: Sequence[LocalModel]
    copies: Mapping[str, Copy]
    leftover: Mapping[str, Sequence[CacheName]]
    foreign: Sequence[str]
    capacity: int
    used: int
    available: int
    # What is wrong with the disk as a whole.
    disk_failure: DownloadError | None = None
    # How many models of its groups the LocalModelNode has no room for.
    left_out: int = 0


def build_status(
    facts: Facts, previous: Sequence[Condition], now: datetime
) -> LocalModelNodeStatus:
    """The status; conditions keep their transition time from `previous` while they do not flip."""
    # A node in two groups may have an entry twice.
    entries = {(e.key, e.namespace, e.model_name): e for e in facts.wanted}.values()
    wanted = [_entry(entry, facts.copies.get(entry.key, Copy())) for entry in entries]
    leaving = [
        _leaving(key, name, facts.copies.get(key, Copy()))
        for key, names in sorted(facts.leftover.items())
        for name in {(name.namespace, name.name): name for name in names}.values()
    ]
    return LocalModelNodeStatus(
        observed_generation=facts.generation,
        conditions=conditions(
            _findings(facts, wanted, leaving),
            observed=previous,
            generation=facts.generation,
            now=now,
        ),
        model_status={
            f"{model.namespace}/{model.name}" if model.namespace else model.name: (
                kserve_model_status(model.state)
            )
            for model in wanted
        },
        models=(*wanted, *leaving),
        disk=NodeDisk(
            capacity=format_quantity(facts.capacity),
            used=format_quantity(facts.used),
            available=format_quantity(facts.available),
        ),
    )


def without_progress(status: LocalModelNodeStatus) -> LocalModelNodeStatus:
    """The status as far as a change of it is news that cannot wait."""
    blank = dict.fromkeys(_PROGRESS_FIELDS)
    models = tuple(model.model_copy(update=blank) for model in status.models)
    return status.model_copy(update={"models": models, "disk": None})


def _entry(wanted: LocalModel, copy: Copy) -> NodeModelStatus:
    hindered = refusal(wanted) or (_unreadable(wanted, copy) if copy.unreadable else None)
    if hindered is not None:
        return _failed(wanted, hindered)
    if not copy.is_for(requester_of(wanted)):
        return _not_given(wanted, copy)
    return _on_disk(wanted, copy).model_copy(update=_use(copy))


def _use(copy: Copy) -> dict[str, object]:
    used = copy.last_used
    return {
        "disk_bytes": copy.disk_bytes or None,
        # While a pod mounts it, each write would differ otherwise.
        "last_used_time": used.replace(second=0, microsecond=0) if used else None,
    }


def _on_disk(wanted: LocalModel, copy: Copy) -> NodeModelStatus:
    manifest = copy.manifest
    if manifest is not None and wanted.hash in {None, manifest.hash}:
        return _model(
            wanted,
            ModelState.DOWNLOADED,
            size=manifest.size,
            hash=manifest.hash,
        )
    if copy.disk_failure is not None and copy.transfer is None:
        return _failed(wanted, copy.disk_failure)
    return _on_its_way(wanted, copy)


def _not_given(wanted: LocalModel, copy: Copy) -> NodeModelStatus:
    """What is here, was here or comes is not the entry's: nothing is told but its own attempts."""
    requester = requester_of(wanted)
    transfer, failure = copy.transfer, copy.failures.get(requester)
    if transfer is not None and transfer.requester == requester:
        own = Copy(transfer=transfer, failures=copy.failures)
        return _on_its_way(wanted, own)
    is_past = transfer is not None and failure is not None and failure.error.kind in NODE_KINDS
    if failure is not None and not is_past and requester not in copy.suspended:
        return _failed(
            wanted, failure.error, attempts=failure.attempts, next_retry_time=failure.retry_time
        )
    if copy.awaits_turn or (requester in copy.suspended and transfer is None):
        return _awaiting_turn(wanted, failure)
    state, reason, message = _why_not(requester, copy)
    return _model(wanted, state, reason=reason, message=message)


def _why_not(requester: Requester, copy: Copy) -> tuple[ModelState, str, str]:
    """State, reason and message of an entry that has no copy, and whose source said nothing yet."""
    if copy.manifest is not None:
        return ModelState.PENDING, CHECKING_ACCESS, _CHECKING
    if copy.waiting is not None:
        return ModelState.PENDING, copy.waiting.reason, _WAITS
    if copy.evicted is not None and not copy.referrer:
        return ModelState.EVICTED, copy.evicted.reason.value, _WENT
    if requester.namespace and "" in copy.namespaces:
        return ModelState.PENDING, AWAITING_CLUSTER_CACHE, _AFTER_CLUSTER_CACHE
    if copy.deciding and requester not in copy.deciding:
        return ModelState.PENDING, AWAITING_OLDER_CACHE, _AFTER_OLDER_CACHE
    return ModelState.PENDING, CHECKING_ACCESS, _OTHERS


def _on_its_way(wanted: LocalModel, copy: Copy) -> NodeModelStatus:
    manifest, transfer = copy.manifest, copy.transfer
    failure = copy.failures.get(requester_of(wanted))
    # A retry is no news before the source has answered it: no flapping between the two states.
    # Nor is that of another requester, unless the node was what had failed.
    if transfer is not None and (
        failure is None
        or (
            transfer.listed
            and (transfer.requester == requester_of(wanted) or failure.error.kind in NODE_KINDS)
        )
    ):
        return _model(
            wanted,
            ModelState.DOWNLOADING,
            size=transfer.total,
            downloaded_bytes=transfer.done,
            bytes_per_second=transfer.bytes_per_second,
            attempts=failure.attempts if failure else None,
            **(_adopting(transfer) or _damage(copy) or _returning(wanted, copy)),
        )
    if copy.waiting is not None or (copy.evicted is not None and not copy.referrer):
        return _for_capacity(wanted, copy)
    if copy.awaits_turn:
        return _awaiting_turn(wanted, failure)
    if failure is not None:
        return _failed(
            wanted, failure.error, attempts=failure.attempts, next_retry_time=failure.retry_time
        )
    if manifest is not None:
        return _other_hash(wanted, manifest)
    return _model(wanted, ModelState.PENDING, **(_damage(copy) or _returning(wanted, copy)))


def _awaiting_turn(wanted: LocalModel, failure: Failure | None) -> NodeModelStatus:
    """What other nodes download first. Why it failed when it was its turn is told with it."""
    group = f"LocalModelNodeGroup {wanted.node_group}" if wanted.node_group else "its node group"
    message = (
        f"other nodes of {group} download first: its download.maxConcurrentNodes is reached; this "
        "node begins by itself when its turn comes"
    )
    return _model(
        wanted,
        ModelState.PENDING,
        reason=AWAITING_TURN,
        message=f"{message}{_last_try(failure)}"[:_MAX_MESSAGE],
        attempts=failure.attempts if failure else None,
    )


def _for_capacity(wanted: LocalModel, copy: Copy) -> NodeModelStatus:
    """What waits for room, or has made room."""
    if copy.waiting is None:
        assert copy.evicted is not None  # noqa: S101
        return _model(
            wanted,
            ModelState.EVICTED,
            reason=copy.evicted.reason.value,
            message=copy.evicted.message[:_MAX_MESSAGE],
        )
    failure = copy.failures.get(requester_of(wanted))
    return _model(
        wanted,
        ModelState.PENDING,
        reason=copy.waiting.reason,
        message=f"{copy.waiting.message}{_last_try(failure)}"[:_MAX_MESSAGE],
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
    return {"reason": ADOPTING, "message": message}


def _returning(wanted: LocalModel, copy: Copy) -> dict[str, str]:
    if copy.evicted is None or not copy.referrer:
        return {}
    # It may be a pod of another namespace.
    is_shared = bool(copy.requesters) and copy.namespaces != {wanted.namespace}
    told = f"it was evicted, and comes back: {copy.referrer} refers to it"
    message = _RETURNS if wanted.namespace and is_shared else told
    return {"reason": REFERENCED, "message": message[:_MAX_MESSAGE]}


def _other_hash(wanted: LocalModel, manifest: Manifest) -> NodeModelStatus:
    """A copy that is here and has not, or not yet, the hash that this entry asks for."""
    if manifest.hash is None:
        return _model(
            wanted,
            ModelState.PENDING,
            size=manifest.size,
            reason="Hashing",
            message="the copy is here, and its hash is being computed",
        )
    return _model(
        wanted,
        ModelState.FAILED,
        size=manifest.size,
        hash=manifest.hash,
        reason="Corrupt",
        message=f"the copy on the disk has the hash {manifest.hash} and serves another cache "
        f"with the same sourceModelUri; this one expects {wanted.hash}: correct spec.hash",
    )


def _damage(copy: Copy) -> dict[str, str]:
    if not copy.problem:
        return {}
    message = f"the copy on the disk is damaged ({copy.problem}); its bad files are fetched again"
    return {"reason": "Corrupt", "message": message[:_MAX_MESSAGE]}


def _unreadable(wanted: LocalModel, copy: Copy) -> DownloadError:
    if wanted.namespace:
        # Whose it is cannot be read either.
        return DownloadError(FailureKind.INTERNAL, _NO_LOOK)
    return DownloadError(
        FailureKind.INTERNAL,
        f"the copy on the disk cannot be read ({copy.problem}); it is left alone, and looked at "
        "again by itself: check the node's disk and the agent's limits",
    )


def _failed(wanted: LocalModel, error: DownloadError, **fields: object) -> NodeModelStatus:
    return _model(
        wanted,
        ModelState.FAILED,
        reason=error.kind.value,
        message=error.message[:_MAX_MESSAGE],
        **fields,
    )


def _model(wanted: LocalModel, state: ModelState, **fields: object) -> NodeModelStatus:
    name = cache_name(wanted)
    return NodeModelStatus.model_validate(
        {
            "key": wanted.key,
            "name": name.name,
            "namespace": name.namespace,
            "state": state,
            "cached": state is ModelState.DOWNLOADED,
            **fields,
        }
    )


def _leaving(key: str, name: CacheName, copy: Copy) -> NodeModelStatus:
    is_granted = name.namespace in copy.granted.namespaces
    manifest = copy.manifest if is_granted else None
    return NodeModelStatus(
        key=key,
        name=name.name,
        namespace=name.namespace,
        state=ModelState.REMOVING,
        cached=manifest is not None,
        size=manifest.size if manifest else None,
        hash=manifest.hash if manifest else None,
    ).model_copy(update=_use(copy) if is_granted else {})


def _findings(
    facts: Facts, wanted: Sequence[NodeModelStatus], leaving: Sequence[NodeModelStatus]
) -> list[Finding]:
    # One that was evicted is as it should be: nobody needs it now.
    ready = all(model.cached or model.state is ModelState.EVICTED for model in wanted)
    reason, message = _readiness(wanted)
    if leaving:
        message += f", {len(leaving)} to be removed"
    if facts.left_out:
        message += (
            f"; {facts.left_out} more are not listed, since this object has no room for them: take "
            "the node out of a group"
        )
    findings = [Finding(READY, "True" if ready else "False", reason, message)]
    if facts.disk_failure is not None:
        failure = facts.disk_failure
        findings.append(Finding(DISK_READY, "False", failure.kind.value, failure.message))
    if facts.foreign:
        findings.append(
            Finding(FOREIGN_DIRECTORIES, "True", "Found", _foreign_message(facts.foreign))
        )
    return findings


def _readiness(wanted: Sequence[NodeModelStatus]) -> tuple[str, str]:
    """Reason and message of Ready: what `kubectl get` shows."""
    if not wanted:
        return "NothingWanted", "no models wanted"
    cached = sum(model.cached for model in wanted)
    noun = "model" if len(wanted) == 1 else "models"
    message = f"{cached} of {len(wanted)} {noun} cached"
    counts = Counter(model.state for model in wanted)
    message += "".join(
        f", {counts[state]} {word}" for state, word in _COUNTED.items() if counts[state]
    )
    failed = next((model for model in wanted if model.state is ModelState.FAILED), None)
    if failed is not None:
        return failed.reason or "Failed", f"{message} ({failed.name}: {failed.reason})"
    if counts[ModelState.DOWNLOADING]:
        return "Downloading", message
    pending = {model.reason for model in wanted if model.state is ModelState.PENDING}
    if pending:
        return (CAPACITY_FULL if CAPACITY_FULL in pending else "Pending"), message
    return "AllCached", message


def _foreign_message(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_MAX_NAMED]) + (", …" if len(names) > _MAX_NAMED else "")
    what = "entry" if len(names) == 1 else "entries"
    return (
        f"models/ has {len(names)} {what} that localmodel did not make and leaves alone ({listed}):"
        " move them away if their space is needed"
    )
