"""What an agent would do with another list of models: downloads, evictions, waits. Pure.

The decisions are those of agent.capacity. The node is known by its LocalModelNode alone, so the
forecast is coarser than the agent: sizes are reported or declared ones, the last use of a copy is
known to the minute, and every source is assumed to answer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from agent.capacity.download_queue import decide_downloads
from agent.capacity.holdings import Group, Holding
from agent.capacity.ledger import Ledger
from agent.capacity.places import Places
from agent.structs.sizes import Space, in_blocks
from crds.keys import model_key
from crds.quantity import parse_quantity
from deploy.kube import meta
from deploy.kubectl.links import moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.capacity.download_queue import Victim
    from deploy.kube.kinds import KubeObject

_DOWNLOADED, _EVICTED, _DOWNLOADING = "Downloaded", "Evicted", "Downloading"


class Download(Struct, frozen=True, rename="camel"):
    """A model that the node downloads. waits_for_turn: other nodes of its group go first.

    known: whether a node has reported the size; otherwise a cache declares it. again: the node has
    or had a copy. adds_nothing: a running download continues.
    """

    node: str
    key: str
    models: tuple[str, ...]
    bytes: int
    known: bool
    waits_for_turn: bool = False
    again: bool = False


class Eviction(Struct, frozen=True, rename="camel"):
    """A copy that the node evicts, and why; newcomers: the models that it makes room for."""

    node: str
    key: str
    models: tuple[str, ...]
    bytes: int
    reason: str
    newcomers: tuple[str, ...] = ()


class Wait(Struct, frozen=True, rename="camel"):
    """A model that does not fit: it needs `needed` bytes, and `free` ones of `of` are free."""

    node: str
    key: str
    models: tuple[str, ...]
    needed: int
    free: int
    of: str


class Removal(Struct, frozen=True, rename="camel"):
    """A copy that no entry requests any more, and that goes after the grace period.

    pods: how many pods use it; it stays until they end.
    """

    node: str
    key: str
    models: tuple[str, ...]
    bytes: int
    pods: int = 0


_Of = TypeVar("_Of", Download, Eviction, Wait)


@dataclass(frozen=True)
class NodeForecast:
    """What one node does."""

    downloads: tuple[Download, ...] = ()
    evictions: tuple[Eviction, ...] = ()
    waits: tuple[Wait, ...] = ()
    removals: tuple[Removal, ...] = ()

    def can_be_usual(self, before: KubeObject) -> bool:
        """Whether any of it might happen with the former list of models, too."""
        former = _entries(before.get("spec") or {})
        return bool(self.evictions or self.waits) or any(
            one.key in former for one in self.downloads
        )


@dataclass(frozen=True)
class Copy:
    """What a LocalModelNode reports of one key, for all of its caches together."""

    models: tuple[str, ...] = ()
    cached: bool = False
    state: str = ""
    size: int | None = None
    disk_bytes: int = 0
    hash: str | None = None
    pods: int = 0
    last_used: float = 0.0


def copies_of(node: KubeObject) -> dict[str, Copy]:
    """The copies that a LocalModelNode reports, by key."""
    found: dict[str, Copy] = {}
    for model in (node.get("status") or {}).get("models") or ():
        key, before = model["key"], found.get(model["key"], Copy())
        cached = before.cached or bool(model.get("cached"))
        state = _DOWNLOADED if cached else model.get("state", "")
        found[key] = Copy(
            models=(*before.models, _name(model["name"], model.get("namespace") or "")),
            cached=cached,
            state=state,
            size=_most(before.size, model.get("size")),
            disk_bytes=max(before.disk_bytes, model.get("diskBytes") or 0),
            hash=model.get("hash") or before.hash,
            pods=max(before.pods, model.get("pods") or 0),
            last_used=max(before.last_used, _last_used(model)),
        )
    return found


def ledger_of(node: KubeObject, sizes: Mapping[str, int]) -> Ledger:
    """The models and the bounds of a node by its LocalModelNode. sizes: known ones, by key."""
    spec = node.get("spec") or {}
    return _ledger(node, _entries(spec), copies_of(node), sizes)


def _ledger(
    node: KubeObject,
    entries: Mapping[str, Sequence[KubeObject]],
    copies: Mapping[str, Copy],
    sizes: Mapping[str, int],
) -> Ledger:
    holdings = {
        key: _holding(entries.get(key, ()), copies.get(key, Copy()), sizes.get(key))
        for key in (*entries, *(key for key in copies if key not in entries))
    }
    groups = _groups(node.get("spec") or {})
    return Ledger(holdings, groups, _space(node, copies.values()))


def forecast(
    before: KubeObject | None, after: KubeObject, sizes: Mapping[str, int]
) -> NodeForecast:
    """What follows from a changed LocalModelNode, without what would happen anyway.

    sizes: bytes of models by key, as reported.
    """
    copies = copies_of(after)
    found = _Forecast(before, after, copies, sizes).run()
    if before is None or not found.can_be_usual(before):
        return found
    usual = _Forecast(before, before, copies, sizes).run()
    return NodeForecast(
        downloads=_without(found.downloads, usual.downloads),
        evictions=_without(found.evictions, usual.evictions),
        waits=_without(found.waits, usual.waits),
        removals=found.removals,
    )


def _without(some: tuple[_Of, ...], usual: tuple[_Of, ...]) -> tuple[_Of, ...]:
    keys = {one.key for one in usual}
    return tuple(one for one in some if one.key not in keys)


class _Forecast:
    def __init__(
        self,
        before: KubeObject | None,
        after: KubeObject,
        copies: Mapping[str, Copy],
        sizes: Mapping[str, int],
    ) -> None:
        self._node, self._sizes, self._copies = meta.name(after), sizes, copies
        self._entries = _entries(after.get("spec") or {})
        self._former = _entries((before or {}).get("spec") or {})
        self._ledger = _ledger(after, self._entries, copies, sizes)
        self._downloads: list[Download] = []
        self._evictions: list[Eviction] = []
        self._started: set[str] = set()

    def run(self) -> NodeForecast:
        making_room: str | None = None
        relieving: frozenset[str] = frozenset()
        waits: Mapping[str, Any] = {}
        # Each round evicts or starts something; nothing is started or evicted twice.
        for _ in range(2 * len(self._entries) + 2):
            missing = [key for key in self._entries if self._is_missing(key)]
            decision = decide_downloads(
                self._ledger,
                missing,
                due=missing,
                places=Places(len(missing) + 1),
                may_evict=True,
                making_room=making_room,
                relieving=relieving,
            )
            making_room, relieving = decision.making_room, decision.relieving
            waits = decision.waiting
            victims = [one for one in decision.evict if self._ledger.holding(one.key).tree]
            if not victims and not decision.start and not self._let_leave():
                break
            for victim in victims:
                self._evict(victim)
            for key in decision.start:
                self._start(key)
        return NodeForecast(
            downloads=tuple(self._downloads),
            evictions=tuple(self._evictions),
            waits=tuple(
                Wait(
                    self._node,
                    key,
                    self._names(key),
                    shortage.needed,
                    shortage.free,
                    "the node's disk"
                    if shortage.account.disk
                    else f"the storageLimit of {shortage.account.group}",
                )
                for key, shortage in waits.items()
            ),
            removals=tuple(self._removals()),
        )

    def _let_leave(self) -> bool:
        """Take away the copies that no entry wants. Returns whether there was any."""
        leaving = [key for key, one in self._ledger.holdings.items() if one.leaving]
        self._ledger = replace(
            self._ledger,
            holdings={k: one for k, one in self._ledger.holdings.items() if not one.leaving},
        )
        return bool(leaving)

    def _is_missing(self, key: str) -> bool:
        if key in self._started:
            return False
        copy = self._copies.get(key, Copy())
        if not copy.cached or not self._ledger.holding(key).tree:
            return True
        hashes = {entry["hash"] for entry in self._entries[key] if entry.get("hash")}
        return bool(hashes) and copy.hash not in hashes

    def _start(self, key: str) -> None:
        entries, copy = self._entries[key], self._copies.get(key, Copy())
        holding = self._ledger.holding(key)
        self._started.add(key)
        self._set(key, replace(holding, tree=holding.size, staged=0, resting=True, evicted=False))
        if copy.state == _DOWNLOADING and key in self._former:
            return
        self._downloads.append(
            Download(
                self._node,
                key,
                self._names(key),
                self._size(key),
                known=copy.size is not None or key in self._sizes,
                waits_for_turn=all(entry.get("suspend") for entry in entries),
                again=copy.cached or copy.state == _EVICTED,
            )
        )

    def _evict(self, victim: Victim) -> None:
        holding = self._ledger.holding(victim.key)
        self._evictions.append(
            Eviction(
                self._node,
                victim.key,
                self._names(victim.key),
                holding.tree,
                victim.reason.value,
                self._names(victim.newcomer) if victim.newcomer else (),
            )
        )
        self._set(victim.key, replace(holding.without_copy, evicted=True))

    def _set(self, key: str, holding: Holding) -> None:
        self._ledger = replace(self._ledger, holdings={**self._ledger.holdings, key: holding})

    def _removals(self) -> Iterable[Removal]:
        for key in self._former:
            copy = self._copies.get(key)
            if key not in self._entries and copy is not None and copy.disk_bytes:
                names = _names(self._former[key])
                yield Removal(self._node, key, names, copy.disk_bytes, copy.pods)

    def _size(self, key: str) -> int:
        return _known_size(self._entries[key], self._copies.get(key, Copy()), self._sizes.get(key))

    def _names(self, key: str) -> tuple[str, ...]:
        return _names(self._entries.get(key) or self._former.get(key) or ())


def _entries(spec: Mapping[str, Any]) -> dict[str, list[KubeObject]]:
    """The entries of a LocalModelNode by key, the most important first."""
    found: dict[str, list[KubeObject]] = {}
    for entry in spec.get("localModels") or ():
        found.setdefault(model_key(entry["sourceModelUri"]), []).append(entry)
    return found


def _holding(entries: Sequence[KubeObject], copy: Copy, known: int | None) -> Holding:
    namespaces = {entry.get("namespace") or "" for entry in entries}
    return Holding(
        groups=frozenset(entry.get("nodeGroup") or "" for entry in entries),
        size=in_blocks(_known_size(entries, copy, known)),
        tree=copy.disk_bytes if copy.cached else 0,
        staged=0 if copy.cached else copy.disk_bytes,
        resting=copy.cached,
        listed=True,
        owners=frozenset() if "" in namespaces else frozenset(namespaces),
        priority=max((int(entry.get("priority") or 0) for entry in entries), default=0),
        pinned=any(entry.get("retention") == "Pinned" for entry in entries),
        referenced=bool(copy.pods) or any(entry.get("referenced") for entry in entries),
        mounted=bool(copy.pods),
        evicted=copy.state == _EVICTED,
        leaving=not entries and not copy.pods,
        last_used=copy.last_used,
    )


def _known_size(entries: Iterable[KubeObject], copy: Copy, known: int | None) -> int:
    if copy.size is not None:
        return copy.size
    if known is not None:
        return known
    sizes = (parse_quantity(str(entry.get("modelSize") or "0")) for entry in entries)
    return max(sizes, default=0)


def _groups(spec: Mapping[str, Any]) -> dict[str, Group]:
    found = {}
    for group in spec.get("groups") or ():
        eviction = group.get("eviction") or {}
        found[group["name"]] = Group(
            limit=parse_quantity(str(group["storageLimit"])),
            high_percent=int(eviction.get("highPercent", 90)),
            low_percent=int(eviction.get("lowPercent", 80)),
            evicts=eviction.get("policy") == "LRU",
        )
    return found


def _space(node: KubeObject, copies: Iterable[Copy]) -> Space | None:
    disk = (node.get("status") or {}).get("disk")
    if not disk:
        return None
    capacity, used, available = (
        parse_quantity(str(disk[name])) for name in ("capacity", "used", "available")
    )
    ours = sum(copy.disk_bytes for copy in copies)
    return Space(capacity=capacity, writable=used + available, others=max(0, used - ours))


def _names(entries: Iterable[KubeObject]) -> tuple[str, ...]:
    names = (_name(one["modelName"], one.get("namespace") or "") for one in entries)
    return tuple(dict.fromkeys(names))


def _name(name: str, namespace: str) -> str:
    return f"{namespace}/{name}" if namespace else name


def _last_used(model: Mapping[str, Any]) -> float:
    for field in ("lastUsedTime", "downloadedTime", "verifiedTime"):
        then = moment(model.get(field) or "")
        if then is not None:
            return then.timestamp()
    return 0.0


def _most(one: int | None, other: int | None) -> int | None:
    return max((size for size in (one, other) if size is not None), default=None)
