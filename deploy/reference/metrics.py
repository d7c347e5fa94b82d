"""The reference of metrics (docs/metrics.md), from the programs' own collectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.metrics_core import Metric

_INTRODUCTION = """\
<!-- Made from the programs by `make generate`. Do not edit. -->
# Metrics

What the agents and the hooks serve at `/metrics`, in Prometheus' text format. [monitoring.md](monitoring.md)
says how to scrape them, and has alerts and a dashboard. No label has a value that grows with models, nodes,
namespaces or URIs. The agents' counters start at zero with each start.

"""


@dataclass(frozen=True)
class Family:
    """A metric. labels: their names."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]

    @property
    def exposed(self) -> str:
        """The name of the metric's samples."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def families(metrics: Iterable[Metric], labels: dict[str, tuple[str, ...]]) -> list[Family]:
    """The metrics of a program, sorted. labels: the names of each metric's labels."""
    found = [Family(m.name, m.type, m.documentation, labels.get(m.name, ())) for m in metrics]
    return sorted(found, key=lambda family: family.name)


def page(programs: dict[str, list[Family]]) -> str:
    """The page as Markdown. programs: title and metrics of each."""
    return _INTRODUCTION + "\n".join(
        "".join(_section(title, found)) for title, found in programs.items()
    )


def _section(title: str, found: list[Family]) -> Iterator[str]:
    yield f"## {title}\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n"
    for family in found:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        meaning = family.help.replace("|", "\\|")
        yield f"| `{family.exposed}` | {family.kind} | {labels} | {meaning} |\n"
