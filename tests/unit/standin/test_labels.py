from __future__ import annotations

import pytest
from pydantic import ValidationError

from deploy.local.standin.labels import LabelSelector, selects


def selector(content: dict[str, object]) -> LabelSelector:
    return LabelSelector.model_validate(content)


def expression(operator: str, *values: str) -> dict[str, object]:
    requirement: dict[str, object] = {"key": "k", "operator": operator}
    if values:
        requirement["values"] = list(values)
    return {"matchExpressions": [requirement]}


@pytest.mark.parametrize(
    ("content", "labels", "expected"),
    [
        ({}, {}, True),
        ({"matchLabels": {"k": "v"}}, {"k": "v", "other": ""}, True),
        ({"matchLabels": {"k": "v"}}, {"k": "w"}, False),
        ({"matchLabels": {"k": ""}}, {}, False),
        (expression("In", "a", "b"), {"k": "b"}, True),
        (expression("In", "a", "b"), {}, False),
        (expression("NotIn", "a"), {"k": "b"}, True),
        (expression("NotIn", "a"), {}, True),
        (expression("NotIn", "a"), {"k": "a"}, False),
        (expression("Exists"), {"k": ""}, True),
        (expression("Exists"), {}, False),
        (expression("DoesNotExist"), {}, True),
        (expression("DoesNotExist"), {"k": ""}, False),
        ({"matchLabels": {"a": "1"}, **expression("Exists")}, {"a": "1"}, False),
    ],
)
def test_matches(content: dict[str, object], labels: dict[str, str], expected: bool) -> None:
    assert selector(content).matches(labels) is expected


def test_no_selector_selects_everything() -> None:
    assert selects(None, {})


@pytest.mark.parametrize(
    "content",
    [
        {"matchlabels": {}},
        {"matchLabels": {"k": 1}},
        expression("In"),
        expression("Exists", "v"),
        expression("Gt", "1"),
    ],
)
def test_refuses(content: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        selector(content)
