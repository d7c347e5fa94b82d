"""Draws docs/dashboard.svg from Prometheus' answers during a load: `make dashboard-picture`."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.local.errors import LocalError
from deploy.local.layout import CHECKOUT
from deploy.local.prometheus import missing
from deploy.monitoring.panels import ROWS, filled
from deploy.monitoring.rules import rule_groups
from tests.dashboard.load import Load
from tests.dashboard.picture import Point, Series, Span, draw
from tests.dashboard.scene import scene

if TYPE_CHECKING:
    from deploy.local.prometheus import Prometheus
    from deploy.monitoring.panels import Query

PICTURE = CHECKOUT / "docs" / "dashboard.svg"
EVERY_SECONDS = 1.0
WINDOW = "6s"
# How many points a line has at most.
POINTS = 150
# What the picture shows before and after the load.
BEFORE_SECONDS, AFTER_SECONDS = 5.0, 10.0


def answers(prometheus: Prometheus, query: Query, span: Span) -> list[Series]:
    """The lines of a query, named by its legend."""
    step = max(EVERY_SECONDS, round((span.end - span.start) / POINTS, 1))
    found = prometheus.over(filled(query.expr, WINDOW), span.start, span.end, step)
    return [
        Series(
            _legend(query.legend, one["metric"]),
            tuple(Point(float(at), float(value)) for at, value in one["values"]),
        )
        for one in found
    ]


def _legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), template)


def main() -> int:
    """Run the load on a cluster of its own, and draw the picture."""
    parser = argparse.ArgumentParser(prog="tests.dashboard", description=__doc__)
    parser.add_argument("--slow", type=float, default=3.0, help="how slow the load is (default: 3)")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the picture's file")
    options = parser.parse_args()
    lacks = missing()
    if lacks:
        sys.stderr.write(f"error: {lacks}\n")
        return 1
    with tempfile.TemporaryDirectory(prefix="localmodel-") as name:
        folder = Path(name)
        try:
            with scene(folder, EVERY_SECONDS, rule_groups()) as made:
                start = time.time()
                time.sleep(BEFORE_SECONDS)
                Load(made.world, folder / "models", options.slow).run()
                time.sleep(AFTER_SECONDS)
                span = Span(start, time.time())
                rows = [
                    (
                        row,
                        [
                            [s for q in panel.queries for s in answers(made.prometheus, q, span)]
                            for panel in row.panels
                        ],
                    )
                    for row in ROWS
                ]
        except LocalError as error:
            sys.stderr.write(f"{error.text()}\n")
            return 1
    options.out.write_text(draw(rows, span, "localmodel"))
    sys.stdout.write(f"{options.out}: {span.end - span.start:.0f} s of load\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
