"""The figures of a run, their medians, and the table that shows them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FLOOR = "floor"
OURS = "localmodel"


@dataclass(frozen=True)
class Value:
    """One figure. `reached`: how far it was when the time was up; it is no number then."""

    number: float
    unit: str = ""
    reached: str = ""


@dataclass(frozen=True)
class Target:
    """Upper bounds: of the number, and of its ratio to the floor."""

    at_most: float
    of_floor: float | None = None


# By figure.
Sample = dict[str, Value]
# By round, then by row.
Rounds = list[dict[str, Sample]]


def limit(done: int, of: int, what: str, seconds: float) -> Value:
    """A wait that came to its end before what was waited for."""
    return Value(seconds, "s", f"{done:,} of {of:,} {what} after {seconds:.0f} s")


def typical(rounds: Rounds, row: str, name: str) -> Value | None:
    """The median of a figure, or the last time that it could not be had."""
    found = [one[row][name] for one in rounds if name in one.get(row, {})]
    if not found:
        return None
    failed = [value for value in found if value.reached]
    if failed:
        return failed[-1]
    return Value(median(value.number for value in found), found[0].unit)


def ratio(rounds: Rounds, name: str, row: str, reference: str) -> float | None:
    """The median of the ratios within the rounds."""
    found = []
    for one in rounds:
        value, other = one.get(row, {}).get(name), one.get(reference, {}).get(name)
        if value and other and other.number and not value.reached and not other.reached:
            found.append(value.number / other.number)
    return median(found) if found else None


def is_met(rounds: Rounds, name: str, target: Target) -> bool | None:
    """Whether our figure is as low as it should be; None where there is none."""
    value = typical(rounds, OURS, name)
    if value is None:
        return None
    if value.reached or value.number > target.at_most:
        return False
    if target.of_floor is None:
        return True
    to_floor = ratio(rounds, name, OURS, FLOOR)
    return to_floor is None or to_floor <= target.of_floor


def table(rounds: Rounds, other: str | None, targets: Mapping[str, Target]) -> str:
    """A Markdown table with a line for each figure; ratios are those to the other row, if any."""
    rows = [FLOOR, OURS, *([other] if other else [])]
    reference = other or FLOOR
    header = ["figure", *rows, f"ratio to {reference}", "target"]
    lines = [_line(header), _line(["---"] * len(header))]
    for name in _names(rounds, (OURS, *rows)):
        to_reference = ratio(rounds, name, OURS, reference)
        cells = [
            name,
            *(_shown(typical(rounds, row, name)) for row in rows),
            "" if to_reference is None else f"{to_reference:.2f}",
            _verdict(rounds, name, targets.get(name)),
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


def _names(rounds: Rounds, rows: Sequence[str]) -> list[str]:
    """All figures as they were found, and those of one section (`section: figure`) together."""
    found = dict.fromkeys(name for row in rows for one in rounds for name in one.get(row, {}))
    sections = list(dict.fromkeys(_section(name) for name in found))
    return sorted(found, key=lambda name: sections.index(_section(name)))


def _section(name: str) -> str:
    return name.partition(":")[0]


def _shown(value: Value | None) -> str:
    if value is None:
        return ""
    if value.reached:
        return value.reached
    if not value.unit:
        return f"{value.number:,.0f}"
    if value.number >= 100:
        return f"{value.number:,.0f} {value.unit}"
    return f"{value.number:.{1 if value.number >= 10 else 2}f} {value.unit}"


def _verdict(rounds: Rounds, name: str, target: Target | None) -> str:
    value = typical(rounds, OURS, name)
    if target is None or value is None:
        return ""
    text = f"≤ {_bound(target.at_most)}{' ' if value.unit else ''}{value.unit}"
    if target.of_floor is not None:
        to_floor = ratio(rounds, name, OURS, FLOOR)
        now = "" if to_floor is None else f" (is {to_floor:.2f})"
        text += f" and ≤ {target.of_floor:g} times the floor{now}"
    return text if is_met(rounds, name, target) else f"{text}, **missed**"


def _bound(number: float) -> str:
    return f"{number:,.0f}" if number >= 1000 else f"{number:g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
