"""Writes the results of a benchmark into its document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crds.quantity import format_quantity
from tests.bench import install, machine
from tests.bench.latency import latency_table
from tests.bench.table import between_markers, table
from tests.bench.targets import Results, target_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.bench.bench import Settings
    from tests.bench.rows import Row
    from tests.bench.table import Rounds


def report(
    settings: Settings,
    results: Mapping[str, Rounds],
    failed: Mapping[tuple[str, str], str],
    *,
    judged: bool,
) -> str:
    """The targets, and all tables, in Markdown."""
    parts = [_machine(settings), _targets(settings, results, judged=judged)]
    parts += [_row(settings, row, results[row.name], failed) for row in settings.rows]
    return "\n\n".join(parts)


def _targets(settings: Settings, results: Mapping[str, Rounds], *, judged: bool) -> str:
    sizes = {row.name: settings.tree(row).bytes for row in settings.rows}
    note = "" if judged else "\n\nThis run is of another size than the bounds are for."
    return f"### Targets{note}\n\n{target_table(Results(results, sizes), judged=judged)}"


def _row(
    settings: Settings, row: Row, rounds: Rounds, failed: Mapping[tuple[str, str], str]
) -> str:
    tree = settings.tree(row)
    title = row.title.format(size=format_quantity(tree.size), count=f"{tree.count:,}")
    missing = {name: why for (of, name), why in failed.items() if of == row.name}
    draw = latency_table if row.probed else table
    parts = [
        f"### {title}",
        f"Ratios to {row.reference}. {row.notes}".strip(),
        draw(row.lines, rounds, row.reference, missing),
    ]
    return "\n\n".join(parts)


def _machine(settings: Settings) -> str:
    return (
        f"{machine.facts(settings.work)}; {', '.join(install.versions())}. "
        f"{settings.rounds} rounds, in the order of seed {settings.seed}."
    )


def write(document: Path, text: str) -> None:
    """Replace the tables of the document."""
    document.write_text(between_markers(document.read_text(), text))
