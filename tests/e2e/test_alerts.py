"""A real Prometheus scrapes a local cluster: the dashboard has data, and alerts fire and end.

Each test makes the real cause of some alerts. Their times are divided by FACTORS
(`deploy.monitoring.rules.shortened`), which keeps each expression's logic; the real times are
tested by tests/unit/deploy/test_alerts.py. Only there: LocalModelAgentMissing, as there is
neither a DaemonSet controller nor kube-state-metrics here.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest

from deploy.local.prometheus import missing
from deploy.monitoring.panels import ROWS, filled
from deploy.monitoring.rules import rule_groups, shortened
from tests.dashboard.load import Load
from tests.dashboard.scene import Scene, scene

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.xdist_group("monitoring"),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

EVERY_SECONDS = 1.0
# 10 minutes become 5 seconds, and an hour half a minute.
FACTOR = 120.0
FACTORS = {
    # A day becomes six minutes: all that this module does.
    "LocalModelCorruptFiles": 240.0,
    "LocalModelEvictionChurn": 240.0,
    "LocalModelDiskFull": 360.0,
    "LocalModelPodsWaitingLong": 1440.0,
    "LocalModelDownloadStalled": 360.0,
}
WINDOW = "10s"
SECONDS = 60.0


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("monitoring")
    rules = shortened(rule_groups(), FACTORS, FACTOR)
    with scene(folder, EVERY_SECONDS, rules) as made:
        yield made


@pytest.fixture(scope="module")
def loaded(monitored: Scene, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, float]:
    """The scene after the load, and when the load began."""
    began = time.time()
    Load(monitored.world, tmp_path_factory.mktemp("models")).run()
    return monitored, began


def test_each_query_of_each_panel_has_data(loaded: tuple[Scene, float]) -> None:
    (found, began) = loaded
    empty = [
        f"{row.title} / {panel.title}: {query.expr}"
        for row in ROWS
        for panel in row.panels
        for query in panel.queries
        if not any(
            math.isfinite(float(value))
            for series in found.prometheus.over(
                filled(query.expr, WINDOW), began, time.time(), EVERY_SECONDS
            )
            for _, value in series["values"]
        )
    ]
    assert empty == []
