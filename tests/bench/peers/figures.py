"""The table of the runs of agents that fetch from each other. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from tests.bench.peers.scenarios import AGENTS, SCENARIOS, Run, Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEADER = (
    f"| {AGENTS} agents | seconds | ratio | reach | copies | reach | CPU, s |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)

_SERVING = (
    "| a peer that serves | core-seconds a GiB | reach |",
    "| --- | --- | --- |",
)
# Core-seconds for each GiB.
SERVING_REACH = {"plain": 0.3, "TLS": 1.7}

# By name: one direct download in the same round, and the run of all agents.
Round = dict[str, tuple[Run, Run]]


def table(rounds: Sequence[Round]) -> str:
    """A Markdown table of the medians; a ratio is to one direct download in the same round."""
    names = dict.fromkeys(name for found in rounds for name in found)
    lines = [_line(name, [found[name] for found in rounds if name in found]) for name in names]
    return "\n".join((*_HEADER, *lines))


def serving_table(costs: Sequence[Mapping[str, float]]) -> str:
    """A Markdown table of the medians of what serving costs, by how it is served."""
    lines = []
    for name, reach in SERVING_REACH.items():
        found = median(one[name] for one in costs)
        lines.append(f"| {name} | {found:.2f} | {_reach(reach, found)} |")
    return "\n".join((*_SERVING, *lines))


def _line(name: str, runs: Sequence[tuple[Run, Run]]) -> str:
    scenario = next((one for one in SCENARIOS if one.name == name), Scenario(name))
    ratio = median(run.seconds / direct.seconds for direct, run in runs)
    copies = median(run.copies for _, run in runs)
    cells = (
        name,
        f"{median(run.seconds for _, run in runs):.1f}",
        f"{ratio:.2f}",
        _reach(scenario.reach, ratio),
        f"{copies:.2f}",
        _reach(scenario.reach_copies, copies),
        f"{median(run.cpu for _, run in runs):.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def _reach(reach: float | None, found: float) -> str:
    if reach is None:
        return ""
    return f"≤ {reach:g}" + (", missed" if found > reach else "")
