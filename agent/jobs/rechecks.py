"""When it is asked again whether those who have a copy may have it still. Times are monotonic."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from localmodel.agent.structs.credentials import Credentials
    from localmodel.agent.structs.options import Options
    from localmodel.agent.structs.requests import Request, Requester

# How often credentials are looked at between two questions to a source.
LOOKS = 6


@dataclass(frozen=True)
class Recheck:
    """What to do about one who has a copy.

    Its source is asked if that is due, or if its credentials are no longer those of this digest.
    """

    digest: str
    is_due: bool


def digest_of(credentials: Credentials | None) -> str:
    """What tells whether credentials have changed, and not what they are."""
    items = None if credentials is None else credentials.items
    return hashlib.sha256(json.dumps(items).encode()).hexdigest()


class Rechecks:
    """The times of namespaces' requesters.

    A source is asked for each copy; credentials are looked at once for all copies of a requester.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._asks: dict[tuple[str, Requester], float] = {}
        self._looks: dict[Requester, tuple[float, str]] = {}

    def at(self, key: str, requester: Requester) -> float:
        """When something is due."""
        return min(self._ask_at(key, requester), self._look(requester)[0])

    def what(self, key: str, requester: Requester) -> Recheck:
        """What to do now."""
        due = self._ask_at(key, requester) <= self._options.monotonic()
        return Recheck(self._look(requester)[1], due)

    def seen(self, key: str, requester: Requester, digest: str, *, asked: bool) -> None:
        """The credentials have this digest; and the source was asked with them, and said yes."""
        before = self._look(requester)[1]
        self._looks[requester] = (self._later(self._options.recheck / LOOKS), digest)
        if before not in {"", digest}:
            # Rotated: each of their copies is asked about.
            others = (one for one in self._asks if one[1] == requester)
            self._asks |= dict.fromkeys(others, 0.0)
        if asked:
            self._asks[key, requester] = self._later(self._options.recheck)

    def put_off(self, key: str, requester: Requester) -> None:
        """Nobody has answered."""
        later = self._later(self._options.recheck / LOOKS)
        self._asks[key, requester] = later
        self._looks[requester] = (later, self._look(requester)[1])

    def retain(self, requests: Mapping[str, Request]) -> None:
        """Forget the times of all other requesters."""
        asking = {(key, one) for key, request in requests.items() for one in request.requesters}
        requesters = {one for _, one in asking}
        self._asks = {known: at for known, at in self._asks.items() if known in asking}
        self._looks = {one: look for one, look in self._looks.items() if one in requesters}

    def _ask_at(self, key: str, requester: Requester) -> float:
        return self._asks.setdefault((key, requester), self._later(self._options.recheck))

    def _look(self, requester: Requester) -> tuple[float, str]:
        return self._looks.setdefault(requester, (self._later(self._options.recheck / LOOKS), ""))

    def _later(self, seconds: float) -> float:
        """Not at the same moment on all nodes."""
        return self._options.monotonic() + seconds * (1 - 0.25 * self._options.jitter())
