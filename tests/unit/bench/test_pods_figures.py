"""The table of `make bench-pods`."""

from __future__ import annotations

from tests.bench.pods.figures import table
from tests.bench.pods.rows import ROWS


def test_a_row_has_the_medians_of_its_rounds_and_says_what_it_missed() -> None:
    fast = {row.name: (2.0, 4.0) for row in ROWS}
    slow = {row.name: (3.0, 9.0) for row in ROWS}
    lines = table([fast, slow, slow]).splitlines()
    assert "| pod without the label | 3.00 | 9.00 | 3.00 | 6.00 |  |" in lines
    assert "| pod, 1 container, 1 model | 3.00 | 9.00 | 3.00 | 6.00 | ≤ 5, missed |" in lines
    assert "missed" not in table([fast])


def test_a_row_asks_for_as_many_models_as_it_says() -> None:
    asked = {row.name: row.make("here", 7) for row in ROWS}
    pod = asked["pod, 1 container, 2 models"]["metadata"]
    assert pod["labels"]["localmodel.serving.kserve.io/model"] == "model-0007_model-0008"
    deployment = asked["Deployment, 1 model"]
    assert "labels" not in deployment["metadata"]
    template = deployment["spec"]["template"]["metadata"]
    assert template["labels"]["localmodel.serving.kserve.io/model"] == "model-0007"
