"""The reference of metrics (docs/metrics.md), from the programs' own collectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import CollectorRegistry

PREFIX = "localmodel_"

_INTRODUCTION = """\
<!-- Made from the programs by `make generate`. Do not edit. -->
# Metrics

What the agents and the hooks serve at `/metrics`, in Prometheus' text format.
[monitoring.md](monitoring.md) says how to scrape them, and has alerts and a dashboard. No label has
values that grow with models, nodes, namespaces or URIs. The counters start at zero with each start
of the program. The agents also serve `process_*` of the client library.

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


def page(programs: dict[str, list[Family]]) -> str:
    """The page as Markdown. programs: title and metrics of each."""
    return _INTRODUCTION + "\n".join(
        "".join(_section(title, found)) for title, found in programs.items()
    )


def _section(title: str, found: list[Family]) -> Iterator[str]:
    yield f"## {title}\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n"
    for family in sorted(found, key=lambda family: family.name):
        labels = ", ".join(f"`{label}`" for label in family.labels)
        meaning = family.help.replace("|", "\\|")
        yield f"| `{family.exposed}` | {family.kind} | {labels} | {meaning} |\n"


def gathered(registry: CollectorRegistry) -> list[Family]:
    """The metrics of a program's registry, without those of the client library."""
    # The library tells the names of labels only by series, and not each metric has series yet.
    labels = {
        name: tuple(getattr(collector, "_labelnames", ()))
        for name, collector in registry._names_to_collectors.items()  # noqa: SLF001
    }
    return [
        Family(metric.name, metric.type, metric.documentation, labels.get(metric.name, ()))
        for metric in registry.collect()
        if metric.name.startswith(PREFIX)
    ]
