"""The component of deploy/components/monitoring, its dashboard, and the picture of it."""

from __future__ import annotations

import json
import math
import os
import subprocess
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from crds.generated import TREE
from deploy.local.layout import CHECKOUT, KUBECTL
from deploy.monitoring.__main__ import DASHBOARD
from deploy.monitoring.dashboard import dashboard_json
from deploy.monitoring.panels import ROWS, Panel, filled
from tests.dashboard.picture import Point, Series, Span, draw, text_of

if TYPE_CHECKING:
    from pathlib import Path

PANELS = [panel for row in ROWS for panel in row.panels]
MONITORS = CHECKOUT / "deploy/components/monitoring/pod-monitors.yaml"


def test_the_committed_dashboard_is_the_one_of_the_code() -> None:
    assert (TREE / DASHBOARD).read_text() == dashboard_json()


def test_panels_fill_the_grid_without_overlap() -> None:
    made = json.loads(dashboard_json())
    taken: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in made["panels"]}) == len(made["panels"])
    assert [v["name"] for v in made["templating"]["list"]] == ["datasource", "job", "node"]


@pytest.mark.parametrize("panel", PANELS, ids=[panel.title for panel in PANELS])
def test_a_panel_says_what_it_shows(panel: Panel) -> None:
    assert panel.description.endswith((".", "why."))
    assert panel.unit in {"none", "bytes", "Bps", "s", "percentunit", "reqps"}
    for query in panel.queries:
        assert query.legend
        assert "$" not in filled(query.expr, "1m")
    assert [value for value, _ in panel.thresholds] == sorted(v for v, _ in panel.thresholds)


def _rendered(folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(CHECKOUT / "deploy/overlays/standalone", folder)],
        "components": [os.path.relpath(CHECKOUT / "deploy/components/monitoring", folder)],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    argv = [str(KUBECTL), "kustomize", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


@pytest.mark.skipif(not KUBECTL.exists(), reason="needs kubectl: make kube")
def test_the_component_renders_beside_an_overlay(tmp_path: Path) -> None:
    objects = _rendered(tmp_path / "mine")
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for one in objects:
        by_kind.setdefault(one["kind"], []).append(one)
    (board,) = (one for one in by_kind["ConfigMap"] if "grafana_dashboard" in str(one["metadata"]))
    assert board["metadata"]["name"] == "localmodel-dashboard"
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["data"] == {"localmodel.json": (TREE / DASHBOARD).read_text()}
    assert [one["metadata"]["name"] for one in by_kind["PrometheusRule"]] == ["localmodel"]
    workloads = by_kind["DaemonSet"] + by_kind["Deployment"]
    for monitor in by_kind["PodMonitor"]:
        name = monitor["metadata"]["name"]
        (workload,) = (one for one in workloads if one["metadata"]["name"] == name)
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
        # The job that the alerts name.
        assert labels[monitor["spec"]["jobLabel"]] == name


def test_pods_are_scraped_where_they_listen() -> None:
    for monitor in yaml.safe_load_all(MONITORS.read_text()):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
        (relabeling,) = endpoint["relabelings"]
        assert relabeling["targetLabel"] == "node"


def test_the_picture_has_each_panel_and_its_answers() -> None:
    points = tuple(Point(float(at), math.nan if at == 3 else at * 1e9) for at in range(10))
    rows = []
    for row in ROWS:
        lines = 1 if row.panels[0].kind == "stat" else 9
        answers = [
            [Series(f"<{number}> {panel.title}", points) for number in range(lines)]
            for panel in row.panels
        ]
        rows.append((row, answers))
    text = draw(rows, Span(0, 9), "localmodel")
    words = [element.text for element in ET.fromstring(text).iter() if element.text]
    assert {panel.title for panel in PANELS} <= set(words)
    assert "no data" not in words
    empty = draw([(row, [[] for _ in row.panels]) for row in ROWS], Span(0, 9), "localmodel")
    assert empty.count("no data") == len(PANELS)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "bytes", "0 B"),
        (1536, "bytes", "1.5 KiB"),
        (75 << 20, "Bps", "75 MiB/s"),
        (0.385, "percentunit", "38.5%"),
        (0.075, "s", "75 ms"),
        (90, "s", "90 s"),
        (2.5, "reqps", "2.5/s"),
        (12, "none", "12"),
    ],
)
def test_values_are_written_for_people(value: float, unit: str, text: str) -> None:
    assert text_of(value, unit) == text
