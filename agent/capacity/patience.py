"""How long no copy is evicted for an owner for whom evictions were in vain. Times are monotonic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

# The wait doubles with each time, up to MOST_SECONDS. It is forgotten MOST_SECONDS after its end.
PATIENCE_SECONDS = 600.0
MOST_SECONDS = 86400.0
_MOST_DOUBLINGS = 16


@dataclass(frozen=True)
class _Vain:
    """How often evictions were in vain, and until when there are no more."""

    times: int
    until: float


class Patience:
    """Downloads for which copies were evicted, and which then failed, were given up or did not fit.

    A namespace waits with all of its models, since it could name another source each time, and no
    success of another download ends that. A model of the administrator waits alone, until its
    download succeeds.
    """

    def __init__(self) -> None:
        # Who waits if the eviction was in vain, by the key of the download: until that ends.
        self._made: dict[str, frozenset[str]] = {}
        # At most one for each namespace, and for each model of the administrator, for which copies
        # were evicted in vain within the last two days: each costs a download.
        self._vain: dict[str, _Vain] = {}

    def made(self, key: str, owners: frozenset[str]) -> None:
        """A copy was evicted for this download."""
        self._made[key] = _payers(key, owners)

    def ended(self, key: str, now: float, *, is_success: bool) -> None:
        """The download has ended."""
        payers = self._made.pop(key, frozenset())
        if is_success:
            self._vain.pop(key, None)
            return
        for payer in payers:
            before = self._vain.get(payer)
            times = before.times + 1 if before else 1
            wait = min(MOST_SECONDS, PATIENCE_SECONDS * 2.0 ** min(times - 1, _MOST_DOUBLINGS))
            self._vain[payer] = _Vain(times, now + wait)

    def retain(self, keys: Collection[str], now: float) -> None:
        """Forget all downloads of other keys: no entry requests them any more."""
        for key in self._made.keys() - keys:
            self.ended(key, now, is_success=False)
        self._vain = {
            payer: vain for payer, vain in self._vain.items() if now < vain.until + MOST_SECONDS
        }

    @property
    def is_tried(self) -> bool:
        """Whether room was made in vain for anybody."""
        return bool(self._vain)

    def hinders(self, key: str, owners: frozenset[str], now: float) -> bool:
        """Whether no copy may be evicted for a download now: each of its owners waits."""
        return all(
            payer in self._vain and now < self._vain[payer].until for payer in _payers(key, owners)
        )


def _payers(key: str, owners: frozenset[str]) -> frozenset[str]:
    # No namespace has a slash in its name.
    return frozenset(f"{owner}/" for owner in owners) or frozenset({key})
