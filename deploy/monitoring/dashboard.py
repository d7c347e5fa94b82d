"""The dashboard as Grafana's JSON, made of the panels with Grafana's own builders."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)

from deploy.monitoring.panels import ROWS

if TYPE_CHECKING:
    from deploy.monitoring.panels import Panel

TITLE = "localmodel"
UID = "localmodel"
SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
# Grafana's grid is 24 wide. A row of panels has this height.
WIDTH, STAT_HEIGHT, GRAPH_HEIGHT = 24, 4, 8


def dashboard_json() -> str:
    """The dashboard as Grafana imports it."""
    made = (
        builders.Dashboard(TITLE)
        .uid(UID)
        .description(
            "Model files on the disks of nodes. See docs/monitoring.md and docs/runbooks.md."
        )
        .tags(["localmodel"])
        .readonly()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(_variable("job", "Job", "label_values(localmodel_agent_build_info, job)"))
        .with_variable(
            _variable(
                "node", "Node", 'label_values(localmodel_agent_build_info{job=~"$job"}, node)'
            )
        )
    )
    numbers = itertools.count(1)
    for row in ROWS:
        made.with_row(builders.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            made.with_panel(_built(panel, len(row.panels)).id(next(numbers)))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variable(name: str, label: str, query: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(models.VariableOption(text="All", value="$__all", selected=True))
    )


def _built(panel: Panel, beside: int) -> stat.Panel | timeseries.Panel:
    steps = [models.Threshold(value=None, color=panel.below)]
    steps += [models.Threshold(value=value, color=color) for value, color in panel.thresholds]
    thresholds = builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
    made = _stat_panel() if panel.kind == "stat" else _graph(panel)
    made.title(panel.title).description(panel.description).datasource(SOURCE).unit(panel.unit)
    made.thresholds(thresholds)
    if panel.minimum is not None:
        made.min(panel.minimum)
    if panel.maximum is not None:
        made.max(panel.maximum)
    if panel.kind == "stat":
        made.span(WIDTH // beside).height(STAT_HEIGHT)
    else:
        made.span(WIDTH // 3).height(GRAPH_HEIGHT)
    for number, query in enumerate(panel.queries):
        made.with_target(
            prometheus.Dataquery()
            .expr(query.expr)
            .legend_format(query.legend)
            .range()
            .ref_id("ABC"[number])
        )
    return made


def _stat_panel() -> stat.Panel:
    return (
        stat.Panel()
        .graph_mode(BigValueGraphMode.AREA)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _graph(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .fill_opacity(40 if panel.stacked else 10)
        .line_width(1)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
    )
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    return made
