"""What Prometheus reads from an agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from agent.commands.metrics import PREFIX, Metrics

if TYPE_CHECKING:
    from tests.unit.agent.world import World


class Scrape:
    """The value of each series, by name without the agent's prefix, and the values of its labels.

    The values are in the order of the labels' names.
    """

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self._values = {
            (sample.name.removeprefix(PREFIX), *_values(sample.labels)): sample.value
            for family in self.families
            for sample in family.samples
        }

    def value(self, name: str, *labels: str) -> float:
        return self._values[name, *labels]

    def series(self, name: str) -> dict[tuple[str, ...], float]:
        """All series of a name by the values of their labels, without those that are zero."""
        return {
            tuple(labels): value
            for (found, *labels), value in self._values.items()
            if found == name and value
        }


def _values(labels: dict[str, str]) -> list[str]:
    return [value for _, value in sorted(labels.items())]


def measured(world: World) -> Metrics:
    """Let the world's loop begin anew with metrics."""
    metrics = Metrics()
    world.options["counts"] = metrics
    world.restart()
    metrics.follow(lambda: world.loop.snapshot, lambda: True)
    return metrics


def scrape(metrics: Metrics) -> Scrape:
    return Scrape(metrics.exposition().decode())
