"""The delay of a large group's answers.

While nodes report, Metacontroller calls a group's hook again as soon as it has answered, each time
with 20 MiB for 1000 nodes with 50 models. While Metacontroller waits for an answer, it collects
further changes. So an answer that is not urgent is delayed in proportion to the size of the group:
a large group does not keep a CPU busy, and a small one answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hooks.envelope import CompositeResponse

# Copies (nodes times models) from which a group counts as large.
LARGE = 5_000
SECONDS_FOR_EACH_COPY = 60e-6
# Metacontroller's default timeout is ten seconds.
SECONDS_MAX = 3.0
# The shortest time after which Metacontroller is asked to sync again.
_AT_ONCE_SECONDS = 0.05


@dataclass(frozen=True)
class DelayedAnswer:
    """An answer that is sent after a delay, in seconds."""

    response: CompositeResponse
    seconds: float


def is_large(copies: int) -> bool:
    """Whether answers of a group with so many copies are delayed."""
    return copies >= LARGE


def delayed(response: CompositeResponse, copies: int) -> DelayedAnswer:
    """Delay the answer of a group with so many copies, at most until its resync."""
    seconds = min(copies * SECONDS_FOR_EACH_COPY, SECONDS_MAX)
    resync = response.resync_after_seconds
    if isinstance(resync, float):
        seconds = min(seconds, resync)
        response.resync_after_seconds = max(resync - seconds, _AT_ONCE_SECONDS)
    return DelayedAnswer(response, seconds)
