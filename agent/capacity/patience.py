"""For whom room was made in vain, and how long nothing more goes for them. Times are monotonic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

# It doubles each time, up to the most. What happened longer ago than the most is forgotten.
PATIENCE_SECONDS = 600.0
MOST_SECONDS = 86400.0
_MOST_DOUBLINGS = 16


@dataclass(frozen=True)
class _Vain:
    """How often it was, and until when nothing goes."""

    times: int
    until: float


class Patience:
    """A download for which others went, and which then failed, was given up, or did not fit.

    A namespace waits for all of its models, since it could name another source each time, and no
    success of another one ends that. A model of the administrator waits alone, until it is here.
    """

    def __init__(self) -> None:
        # Who waits if it is in vain, by the key for which others went.
        self._made: dict[str, frozenset[str]] = {}
        self._vain: dict[str, _Vain] = {}

    def made(self, key: str, owners: frozenset[str]) -> None:
        """A copy went for this download."""
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
        """Forget all downloads of other models: nothing else is requested any more."""
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
        """Whether nothing goes for a download now: each of its owners waits."""
        return all(
            payer in self._vain and now < self._vain[payer].until for payer in _payers(key, owners)
        )


def _payers(key: str, owners: frozenset[str]) -> frozenset[str]:
    # No namespace has a slash in its name.
    return frozenset(f"{owner}/" for owner in owners) or frozenset({key})
