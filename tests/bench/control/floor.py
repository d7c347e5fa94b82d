"""The floor: the same writes by a bare client, to an API server that nobody else writes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.local import nodes, product
from tests.bench.control import names
from tests.bench.control.figures import Value, limit
from tests.bench.control.measuring import Meter
from tests.bench.control.reporting import reporter
from tests.bench.control.tracking import Version

if TYPE_CHECKING:
    from tests.bench.control.figures import Sample
    from tests.bench.control.reporter import Done
    from tests.bench.control.settings import Settings
    from tests.bench.control.stage import Stage

_NEW = Version("", 0)


def run(stage: Stage, settings: Settings) -> Sample:
    """Write all LocalModelNodes once, and then all their statuses once."""
    for name in (product.META, product.HOOKS):
        stage.cluster.stop(name)
    with reporter(stage.cluster, settings) as writer:
        meter = Meter(stage)
        before = meter.look()
        specs = writer.specs(dict.fromkeys(nodes.node_names(settings.nodes), _NEW))
        statuses = writer.statuses(specs.versions)
        after = meter.look()
    return {
        names.SPECS: _value(specs, settings.nodes),
        names.COUNTED: _value(statuses, settings.nodes),
        **meter.processes(before, after, specs.cpu + statuses.cpu, statuses.peak_bytes),
    }


def _value(done: Done, nodes_count: int) -> Value:
    if len(done.versions) < nodes_count:
        return limit(len(done.versions), nodes_count, "written", done.seconds)
    return Value(done.seconds, "s")
