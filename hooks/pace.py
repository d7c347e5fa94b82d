"""How late the answer of a large group's hook is.

Metacontroller calls a group's hook again as soon as it has answered, while its nodes report: with
20 MiB for 1000 nodes of 50 models, back to back. While it waits for an answer, it gathers what
changes. So an answer that nobody waits for is late, the more so the larger the group: a small group
answers at once, and a large one does not take a core for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hooks.envelope import CompositeResponse

# Fewer copies than these, nodes times models, are no work.
LARGE = 5_000
SECONDS_FOR_EACH_COPY = 60e-6
# Metacontroller gives a hook ten seconds.
SECONDS_MAX = 3.0
# What Metacontroller looks at again at once.
_AT_ONCE_SECONDS = 0.05


@dataclass(frozen=True)
class DelayedAnswer:
    """An answer that may wait. seconds: how long."""

    response: CompositeResponse
    seconds: float


def is_large(copies: int) -> bool:
    """Whether a group of so many copies answers late."""
    return copies >= LARGE


def delayed(response: CompositeResponse, copies: int) -> DelayedAnswer:
    """The answer of a group of so many copies, for as long as it asks not to be called again."""
    seconds = min(copies * SECONDS_FOR_EACH_COPY, SECONDS_MAX)
    resync = response.resync_after_seconds
    if isinstance(resync, float):
        seconds = min(seconds, resync)
        response.resync_after_seconds = max(resync - seconds, _AT_ONCE_SECONDS)
    return DelayedAnswer(response, seconds)
