"""The table of the runs of agents that fetch from each other. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from tests.bench.peers.scenarios import AGENTS, SCENARIOS, Run, Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEADER = (
    f"| {AGENTS} agents | seconds | to one alone | target | to all alone | target "
    "| copies | target | CPU, s |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

_SERVING = (
    "| a peer that serves | core-seconds a GiB | target |",
    "| --- | --- | --- |",
)
# Core-seconds for each GiB.
SERVING_TARGETS = {"plain": 0.3, "TLS": 1.7}

WITHOUT_PEERS = "without peers"


@dataclass(frozen=True)
class Row:
    """A run of all agents, and in the same round one alone, and all without peers."""

    run: Run
    alone: Run
    all_alone: Run | None = None


# By name.
Round = dict[str, Row]


def table(rounds: Sequence[Round]) -> str:
    """A Markdown table of the medians; ratios are of times in the same round."""
    names = dict.fromkeys(name for found in rounds for name in found)
    lines = [_line(name, [found[name] for found in rounds if name in found]) for name in names]
    return "\n".join((_HEADER, *lines))


def serving_table(costs: Sequence[Mapping[str, float]]) -> str:
    """A Markdown table of the medians of what serving costs, by how it is served."""
    lines = []
    for name, target in SERVING_TARGETS.items():
        found = median(one[name] for one in costs)
        lines.append(f"| {name} | {found:.2f} | {_target(target, found)} |")
    return "\n".join((*_SERVING, *lines))


def _line(name: str, rows: Sequence[Row]) -> str:
    scenario = next((one for one in SCENARIOS if one.name == name), Scenario(name))
    ratio = median(row.run.seconds / row.alone.seconds for row in rows)
    of_all = [row.run.seconds / row.all_alone.seconds for row in rows if row.all_alone]
    copies = median(row.run.copies for row in rows)
    cells = (
        name,
        f"{median(row.run.seconds for row in rows):.1f}",
        f"{ratio:.2f}",
        _target(scenario.target, ratio),
        f"{median(of_all):.2f}" if of_all else "",
        _target(scenario.target_of_all, median(of_all)) if of_all else "",
        f"{copies:.2f}",
        _target(scenario.target_copies, copies),
        f"{median(row.run.cpu for row in rows):.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def _target(target: float | None, found: float) -> str:
    if target is None:
        return ""
    return f"≤ {target:g}" + (", missed" if found > target else "")
