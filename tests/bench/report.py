"""Writes the results of a benchmark into its document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crds.quantity import format_quantity
from tests.bench import install, machine
from tests.bench.bench import SMALL_BYTES
from tests.bench.rows import OURS
from tests.bench.table import between_markers, peaks, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.bench.bench import Settings
    from tests.bench.rows import Row
    from tests.bench.table import Rounds

MEMORY_REACH_BYTES = 150_000_000


def report(
    settings: Settings,
    results: Mapping[str, Rounds],
    failed: Mapping[tuple[str, str], str],
    *,
    judged: bool,
) -> str:
    """All tables in Markdown."""
    parts = [_machine(settings)]
    parts += [
        _row(settings, row, results[row.name], failed, judged=judged) for row in settings.rows
    ]
    parts.append(_memory(results))
    return "\n\n".join(parts)


def _row(
    settings: Settings,
    row: Row,
    rounds: Rounds,
    failed: Mapping[tuple[str, str], str],
    *,
    judged: bool,
) -> str:
    tree = settings.tree(row)
    title = row.title.format(
        one=format_quantity(tree.size),
        shard=format_quantity(tree.size),
        small=format_quantity(SMALL_BYTES),
    )
    if row.tree == "small":
        title = title.replace("10,000", f"{tree.count:,}")
    missing = {name: why for (of, name), why in failed.items() if of == row.name}
    parts = [
        f"### {title}",
        f"Ratios to {row.reference}. {row.notes}".strip(),
        table(row.lines, rounds, row.reference, missing, judged=judged),
    ]
    return "\n\n".join(parts)


def _memory(results: Mapping[str, Rounds]) -> str:
    found = peaks(list(results.values()))
    ours = max((peak for name, peak in found.items() if name.startswith(OURS)), default=0)
    verdict = "" if ours <= MEMORY_REACH_BYTES else ", missed"
    return (
        f"The agent's memory was {ours / 1e6:.0f} MB at most in all of these "
        f"(≤ {MEMORY_REACH_BYTES / 1e6:.0f}{verdict})."
    )


def _machine(settings: Settings) -> str:
    return (
        f"{machine.facts(settings.work)}; {', '.join(install.versions())}. "
        f"{settings.rounds} rounds, in the order of seed {settings.seed}."
    )


def write(document: Path, text: str) -> None:
    """Replace the tables of the document."""
    document.write_text(between_markers(document.read_text(), text))
