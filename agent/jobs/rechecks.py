"""When the access of namespaces to copies is checked again. Times are monotonic seconds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.structs.credentials import Credentials
    from agent.structs.options import Options
    from agent.structs.requests import Request, Requester

# How often a requester's credentials are read between two checks at the source.
LOOKS = 6


@dataclass(frozen=True)
class Recheck:
    """How to check a requester that has access to a copy.

    The source is asked if that is due, or if the digest of the credentials has changed.
    """

    digest: str
    is_due: bool


def digest_of(credentials: Credentials) -> str:
    """A digest by which changed credentials are noticed."""
    # The agent's environment changes only with its pod.
    items = None if credentials.own else credentials.items
    return hashlib.sha256(json.dumps(items).encode()).hexdigest()


class Rechecks:
    """The times of the next checks of namespaces' requesters.

    The source is asked for each copy; credentials are read once for all copies of a requester.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        # When the source is asked next; when the credentials are read next, and their digest. Only
        # of requested keys: `retain` drops all others whenever the LocalModelNode changes.
        self._asks: dict[tuple[str, Requester], float] = {}
        self._looks: dict[Requester, tuple[float, str]] = {}

    def at(self, key: str, requester: Requester) -> float:
        """When the next check of a requester's copy is due."""
        return min(self._ask_at(key, requester), self._look(requester)[0])

    def what(self, key: str, requester: Requester) -> Recheck:
        """How to check a requester's copy now."""
        due = self._ask_at(key, requester) <= self._options.monotonic()
        return Recheck(self._look(requester)[1], due)

    def seen(self, key: str, requester: Requester, digest: str, *, asked: bool) -> None:
        """Record credentials that were read; `asked`: the source has accepted them too."""
        before = self._look(requester)[1]
        self._looks[requester] = (self._later(self._options.recheck / LOOKS), digest)
        if before not in {"", digest}:
            # The credentials have changed: the source is asked for each copy of the requester.
            others = (one for one in self._asks if one[1] == requester)
            self._asks |= dict.fromkeys(others, 0.0)
        if asked:
            self._asks[key, requester] = self._later(self._options.recheck)

    def put_off(self, key: str, requester: Requester) -> None:
        """Record that a check got no answer."""
        later = self._later(self._options.recheck / LOOKS)
        self._asks[key, requester] = later
        self._looks[requester] = (later, self._look(requester)[1])

    def retain(self, requests: Mapping[str, Request]) -> None:
        """Forget keys and requesters that no entry requests any more."""
        asking = {(key, one) for key, request in requests.items() for one in request.requesters}
        requesters = {one for _, one in asking}
        self._asks = {known: at for known, at in self._asks.items() if known in asking}
        self._looks = {one: look for one, look in self._looks.items() if one in requesters}

    def _ask_at(self, key: str, requester: Requester) -> float:
        return self._asks.setdefault((key, requester), self._later(self._options.recheck))

    def _look(self, requester: Requester) -> tuple[float, str]:
        return self._looks.setdefault(requester, (self._later(self._options.recheck / LOOKS), ""))

    def _later(self, seconds: float) -> float:
        """The time in so many seconds, up to a quarter earlier: nodes must not check at once."""
        return self._options.monotonic() + seconds * (1 - 0.25 * self._options.jitter())
