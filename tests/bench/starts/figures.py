"""The table of the benchmark. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Seconds that a warm pod may need more than a bare one, and a cold one after the publication.
WARM_TARGET = 0.3
COLD_TARGET = 5.0

_HEADER = (
    "| pod | from | seconds, median (most) | ratio | added, s | target | bytes of the origin |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)


@dataclass(frozen=True)
class Round:
    """Seconds until the container of each pod printed its first line.

    bare, warm: from the creation of the pod. cold: from the publication of its model. warm_bytes:
    what the origin sent meanwhile.
    """

    bare: float
    warm: float
    cold: float
    warm_bytes: int


def table(rounds: Sequence[Round]) -> str:
    """Medians over the rounds; ratio and difference are to the bare pod of the same round."""
    added = median(one.warm - one.bare for one in rounds)
    sent = sum(one.warm_bytes for one in rounds)
    slowest = max(one.cold for one in rounds)
    return "\n".join(
        (
            *_HEADER,
            _line("bare: no model", "creation", [one.bare for one in rounds]),
            _line(
                "warm: the node has the model",
                "creation",
                [one.warm for one in rounds],
                f"{median(one.warm / one.bare for one in rounds):.2f}",
                f"{added:.2f}",
                f"≤ {WARM_TARGET:g} s added, 0 bytes{_missed(added > WARM_TARGET or sent > 0)}",
                str(sent),
            ),
            _line(
                "cold: waits for the model",
                "publication",
                [one.cold for one in rounds],
                f"{median(one.cold / one.bare for one in rounds):.2f}",
                target=f"≤ {COLD_TARGET:g} s at most{_missed(slowest > COLD_TARGET)}",
            ),
        )
    )


def _line(
    name: str,
    start: str,
    seconds: Sequence[float],
    ratio: str = "",
    added: str = "",
    target: str = "",
    sent: str = "",
) -> str:
    shown = f"{median(seconds):.2f} ({max(seconds):.2f})"
    cells = (name, start, shown, ratio, added, target, sent)
    return "| " + " | ".join(cells) + " |"


def _missed(is_missed: bool) -> str:
    return ", missed" if is_missed else ""
