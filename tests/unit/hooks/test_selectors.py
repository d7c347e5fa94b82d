from __future__ import annotations

import pytest

from crds.volumes import NodeSelectorRequirement, NodeSelectorTerm
from hooks.selectors import selects

LABELS = {"pool": "gpu", "gpus": "8", "text": "eight"}


def _term(key: str, operator: str, *values: str) -> NodeSelectorTerm:
    requirement = NodeSelectorRequirement(key=key, operator=operator, values=values)
    return NodeSelectorTerm(match_expressions=(requirement,))


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (_term("pool", "In", "cpu", "gpu"), True),
        (_term("pool", "In", "cpu"), False),
        (_term("none", "In", "gpu"), False),
        (_term("pool", "NotIn", "cpu"), True),
        (_term("pool", "NotIn", "gpu"), False),
        (_term("none", "NotIn", "gpu"), True),
        (_term("pool", "Exists"), True),
        (_term("none", "Exists"), False),
        (_term("none", "DoesNotExist"), True),
        (_term("pool", "DoesNotExist"), False),
        (_term("gpus", "Gt", "7"), True),
        (_term("gpus", "Gt", "8"), False),
        (_term("gpus", "Lt", "9"), True),
        (_term("gpus", "Lt", "8"), False),
        (_term("text", "Gt", "1"), False),
        (_term("none", "Lt", "1"), False),
        (_term("gpus", "Gt"), False),
    ],
)
def test_operators(term: NodeSelectorTerm, expected: bool) -> None:
    assert selects([term], "node-1", LABELS) is expected


def test_no_terms_and_empty_terms_select_nothing() -> None:
    assert not selects([], "node-1", LABELS)
    assert not selects([NodeSelectorTerm()], "node-1", LABELS)


def test_terms_are_ored_and_expressions_anded() -> None:
    pool = NodeSelectorRequirement(key="pool", operator="In", values=("gpu",))
    other = NodeSelectorRequirement(key="other", operator="Exists")
    name = NodeSelectorRequirement(key="metadata.name", operator="In", values=("node-9",))
    both = NodeSelectorTerm(match_expressions=(pool, other))
    assert not selects([both], "node-1", LABELS)
    assert selects([both, NodeSelectorTerm(match_expressions=(pool,))], "node-1", LABELS)
    field = NodeSelectorTerm(match_expressions=(pool,), match_fields=(name,))
    assert selects([field], "node-9", LABELS)
    assert not selects([field], "node-1", LABELS)


def test_an_unknown_operator_is_an_error_and_not_a_no() -> None:
    with pytest.raises(ValueError, match="'Near'"):
        selects([_term("pool", "Near", "gpu")], "node-1", LABELS)
