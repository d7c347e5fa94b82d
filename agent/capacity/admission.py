"""Which downloads start, which copies go for them, and what waits. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.capacity.ledger import (
    EvictionReason,
    Ledger,
    Model,
    Shortage,
    fits_low,
    gives_way,
    relief,
    room_for,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


@dataclass(frozen=True)
class Eviction:
    """A copy that goes: for another model (`newcomer`), or since `group`'s marks say so."""

    key: str
    reason: EvictionReason
    group: str = ""
    newcomer: str = ""


@dataclass
class Admission:
    """What was decided.

    `making_room` is the download that evictions are for, until there is the room that was aimed at;
    `relieving` names the accounts that were past their high marks and are not at the low ones yet.
    """

    start: list[str] = field(default_factory=list)
    evict: list[Eviction] = field(default_factory=list)
    waiting: dict[str, Shortage] = field(default_factory=dict)
    making_room: str | None = None
    relieving: frozenset[str] = frozenset()


def admit(
    ledger: Ledger,
    candidates: Sequence[str],
    *,
    due: Collection[str],
    places: int,
    may_evict: bool,
    making_room: str | None,
    relieving: Collection[str],
) -> Admission:
    """Decide on the candidates, most important first; so many of the `due` ones may start now.

    A model that was never evicted here, or that something refers to, may evict others to fit. One
    that was evicted and that nothing refers to comes back only where that leaves all its accounts
    at their low marks, next to all that would evict it. It is looked at after the others. What may
    be there already, in somebody else's folder, comes before those that are not.

    What does not fit waits, and holds up nothing behind it that fits. But while a model that
    something refers to waits, nothing of a lower priority evicts if the waiting one could have its
    room once pods have gone: otherwise it would wait for ever.

    With `may_evict` False, nothing goes: it is not known what pods mount. The last two are those of
    the decision before.
    """
    work = _Work(ledger, places, may_evict, making_room)
    for key in sorted(candidates, key=lambda key: _turn(ledger.model(key))):
        work.look_at(key, due=key in due)
    work.relieve(relieving)
    return work.found


def _turn(model: Model) -> tuple[bool, bool]:
    return model.returns_idly, not model.foreign


class _Work:
    def __init__(
        self, ledger: Ledger, places: int, may_evict: bool, making_room: str | None
    ) -> None:
        # As it is to be when what was decided is done, and as it is until then.
        self._ledger = self._present = ledger
        self._places = places
        self._may_evict = may_evict
        self._making_room = making_room
        # What fits, or can be made to, and does not start now: a retry is not due, for example.
        self._claims: list[str] = []
        # What waits, and could have its room without the pods.
        self._ahead: list[str] = []
        self.found = Admission()

    def look_at(self, key: str, *, due: bool) -> None:
        model = self._ledger.model(key)
        ledger = self._with_claims(key) if model.evicted else self._ledger
        starts = due and self._places > 0
        if model.returns_idly:
            if starts and fits_low(ledger, key) and self._present.shortage(key) is None:
                self._start(key)
            return
        shortage = ledger.shortage(key)
        gone: list[str] | None = [] if shortage is None else None
        if shortage is not None or key == self._making_room:
            room = self._room(ledger, key)
            gone = gone if room is None else room
        if shortage is not None and ledger.is_gated(key) and not gone:
            # Without room, or with room as soon as what is leaving has gone.
            self._wait(key, shortage)
        elif not starts or (gone and self.found.evict):
            self._claims.append(key)
        elif gone:
            self._evict_for(key, gone)
        elif ledger.is_gated(key) and self._present.shortage(key) is not None:
            # What goes for another one has not gone yet.
            self._claims.append(key)
        else:
            # It fits; or it is of groups whose models the hook admits, and fails by itself if not.
            self._start(key)

    def _with_claims(self, key: str) -> Ledger:
        """The ledger, with room for all that would evict this one as soon as it was back."""
        ledger, model = self._ledger, self._ledger.model(key)
        for other in self._claims:
            if gives_way(model, ledger.model(other)):
                ledger = ledger.reserving(other)
        return ledger

    def _room(self, ledger: Ledger, key: str) -> list[str] | None:
        if not self._may_evict:
            return None
        newcomer = ledger.model(key)
        ahead = any(newcomer.priority < ledger.model(other).priority for other in self._ahead)
        if ahead:
            return None
        victims = ledger.victims(lambda model: gives_way(model, newcomer))
        return room_for(ledger.left(), key, victims)

    def _wait(self, key: str, shortage: Shortage) -> None:
        self.found.waiting[key] = shortage
        newcomer = self._ledger.model(key)
        if not newcomer.referenced:
            return
        possible = [
            other
            for other, model in self._ledger.models.items()
            if self._ledger.is_evictable(other, ignoring_pods=True)
            and (model.mounted or gives_way(model, newcomer))
        ]
        if room_for(self._ledger, key, possible) is not None:
            self._ahead.append(key)

    def _evict_for(self, key: str, gone: Sequence[str]) -> None:
        self.found.making_room = key
        for victim in gone:
            self.found.evict.append(Eviction(victim, EvictionReason.MADE_ROOM, newcomer=key))
            self._ledger = self._ledger.without(victim)
        self._reserve(key)

    def _start(self, key: str) -> None:
        self.found.start.append(key)
        self._reserve(key)

    def _reserve(self, key: str) -> None:
        self._ledger = self._ledger.reserving(key)
        self._present = self._present.reserving(key)
        self._places -= 1

    def relieve(self, before: Collection[str]) -> None:
        """Let models go where their accounts are past the high marks."""
        relieving = set()
        for account in self._ledger.accounts():
            taken = self._ledger.taken(account)
            if taken <= (account.low if account.name in before else account.high):
                continue
            gone = relief(self._ledger, account) if self._may_evict else []
            if not gone:
                continue
            relieving.add(account.name)
            reason = EvictionReason.DISK_PRESSURE if account.disk else EvictionReason.LIMIT_EXCEEDED
            if not self.found.evict:
                self.found.evict = [Eviction(key, reason, group=account.group) for key in gone]
        self.found.relieving = frozenset(relieving)
