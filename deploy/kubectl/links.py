"""The links of the chain from a cache to a copy on a disk, and their states. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from deploy.kube.kinds import KubeObject


class LinkState(StrEnum):
    """OK: nothing is missing. WAITING: it goes on by itself. BROKEN: a person has to act.

    UNKNOWN: the user may not read the objects that show it, and no others that say as much.
    """

    OK = "ok"
    WAITING = "waiting"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Link:
    """One link of the chain.

    name: what the link is about, such as group. reason: one CamelCase word: that of the condition
    or the report that the words come from (docs/conditions.md), or one of docs/kubectl.md. words:
    what is so. since: RFC 3339; empty if that is not known. next: what happens next, or what to
    do; empty if the words say it, or if there is nothing to do.
    """

    name: str
    state: LinkState
    words: str
    reason: str = ""
    since: str = ""
    next: str = ""


@dataclass(frozen=True)
class Chain:
    """The links from a cache to a copy. node: the node of the later links; empty if none.

    states: the number of nodes in each state, such as {"available": 2, "failed": 1}.
    """

    model: str
    node: str
    links: tuple[Link, ...]
    states: Mapping[str, int]

    @property
    def cause(self) -> Link | None:
        """The first broken link, else the first that waits, else is unknown; None: all is well."""
        for state in (LinkState.BROKEN, LinkState.WAITING, LinkState.UNKNOWN):
            for link in self.links:
                if link.state is state:
                    return link
        return None

    @property
    def state(self) -> LinkState:
        """That of the cause, or OK. UNKNOWN: nothing is wrong, as far as the user may read."""
        return self.cause.state if self.cause else LinkState.OK


def ok(name: str, words: str, since: str = "") -> Link:
    """A link of which nothing is missing."""
    return Link(name, LinkState.OK, words, since=since)


def moment(text: str) -> datetime | None:
    """A time of an object, with its zone (UTC if it has none); None if there is none."""
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


def seconds_since(text: str, now: datetime) -> float:
    """Seconds since a time of an object; 0 if there is none, or it is in the future."""
    then = moment(text)
    return max((now - then).total_seconds(), 0.0) if then else 0.0


def in_words(seconds: float) -> str:
    """A duration for people, such as 40 s, 3 min, 5 h, 2 days."""
    for unit, name in ((86400 * 2, "days"), (3600 * 2, "h"), (60 * 2, "min")):
        if seconds >= unit:
            return f"{int(seconds // {'days': 86400, 'h': 3600, 'min': 60}[name])} {name}"
    return f"{int(seconds)} s"


def written_at(obj: KubeObject, *, status: bool, manager: str = "") -> str:
    """When the status, or the rest of an object was last written, as its managedFields say.

    manager: of the fields; empty means any. The time of creation, if no entry says it.
    """
    metadata = obj.get("metadata") or {}
    times = [
        str(entry.get("time") or "")
        for entry in metadata.get("managedFields") or ()
        if (entry.get("subresource") == "status") is status
        and manager in {"", entry.get("manager")}
    ]
    created = "" if status else str(metadata.get("creationTimestamp") or "")
    return max(times, default="") or created


def is_true(condition: Mapping[str, Any]) -> bool:
    """Whether a condition is True."""
    return condition.get("status") == "True"


def from_condition(
    name: str, state: LinkState, condition: Mapping[str, Any], then: str = ""
) -> Link:
    """A link in the words of a condition."""
    return Link(
        name,
        state,
        str(condition.get("message") or ""),
        reason=str(condition.get("reason") or ""),
        since=str(condition.get("lastTransitionTime") or ""),
        next=then,
    )


def until_broken(links: Iterable[Link]) -> Iterator[Link]:
    """The links up to the first one that is neither OK nor UNKNOWN."""
    for link in links:
        yield link
        if link.state in {LinkState.WAITING, LinkState.BROKEN}:
            return
