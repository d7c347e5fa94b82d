"""The table of the runs of agents that fetch from each other. Pure."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from tests.bench.peers.scenarios import AGENTS, SCENARIOS, Run, Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER = (
    f"| {AGENTS} agents | seconds | ratio | reach | copies | reach | CPU, s |",
    "| --- | --- | --- | --- | --- | --- | --- |",
)

# By name: one direct download in the same round, and the run of all agents.
Round = dict[str, tuple[Run, Run]]


def table(rounds: Sequence[Round]) -> str:
    """A Markdown table of the medians; a ratio is to one direct download in the same round."""
    names = dict.fromkeys(name for found in rounds for name in found)
    lines = [_line(name, [found[name] for found in rounds if name in found]) for name in names]
    return "\n".join((*_HEADER, *lines))


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
