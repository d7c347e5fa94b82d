"""What people request of the agent by annotations of the LocalModelNode. Pure.

crds/node_requests.py has the form of the annotations. The agent changes none of them: whether a
request was carried out follows from what is noted of the copy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from crds.node_requests import Operation, parse_request_name, parse_request_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

# How far ahead a request's time may be: clocks differ, and a request waits until its time has come.
MAX_AHEAD = timedelta(minutes=10)


@dataclass(frozen=True)
class Asked:
    """When the eviction and the verification of one key were requested last; None: never."""

    evict: datetime | None = None
    verify: datetime | None = None

    def until(self, now: datetime) -> Asked:
        """Without the requests whose time has not come."""
        if self.evict is not None and self.evict > now:
            return replace(self, evict=None).until(now)
        if self.verify is not None and self.verify > now:
            return replace(self, verify=None)
        return self


NOTHING_ASKED = Asked()
_NO_KEYS: Mapping[str, Asked] = MappingProxyType({})


@dataclass(frozen=True)
class NodeRequests:
    """The requests by key, and what is wrong with annotations that are ignored.

    Bounded by the annotations, of which the API server stores 256 KiB.
    """

    by_key: Mapping[str, Asked] = field(default_factory=lambda: _NO_KEYS)
    problems: frozenset[str] = frozenset()

    def of(self, key: str, now: datetime) -> Asked:
        """The requests for a key whose time has come."""
        return self.by_key.get(key, NOTHING_ASKED).until(now)

    def next_after(self, now: datetime) -> datetime | None:
        """The time of the next request whose time has not come; None if there is none."""
        times = (time for one in self.by_key.values() for time in (one.evict, one.verify))
        return min((time for time in times if time is not None and time > now), default=None)


NO_REQUESTS = NodeRequests()


def node_requests(annotations: Mapping[str, str], now: datetime, *, verifies: bool) -> NodeRequests:
    """The requests in the annotations of a LocalModelNode. Malformed ones become problems.

    `verifies`: the agent may read published copies. If not, requests to verify are problems.
    """
    by_key: dict[str, Asked] = {}
    problems = set()
    for name, value in annotations.items():
        try:
            found = parse_request_name(name)
            if found is None:
                continue
            operation, key = found
            time = parse_request_time(value)
        except ValueError as error:
            problems.add(_ignored(name, str(error)))
            continue
        if operation is Operation.VERIFY and not verifies:
            problems.add(_ignored(name, "--scrub-bytes-per-second of this agent is 0"))
        elif time > now + MAX_AHEAD:
            problems.add(_ignored(name, f"{value} is far ahead of the node's clock"))
        else:
            asked = {"evict" if operation is Operation.EVICT else "verify": time}
            by_key[key] = replace(by_key.get(key, NOTHING_ASKED), **asked)
    return NodeRequests(MappingProxyType(by_key), frozenset(problems))


def _ignored(annotation: str, why: str) -> str:
    return f"the annotation {annotation[:128]} is ignored: {why}; correct or remove it"
