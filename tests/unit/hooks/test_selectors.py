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


NUMBERS = [
    ("0", 0),
    ("81920", 81_920),
    ("007", 7),
    ("0" * 62 + "9", 9),
    ("9223372036854775807", 2**63 - 1),
    # Numbers for Python, and none for strconv.ParseInt or none that a label may have.
    ("81_920", None),
    ("9223372036854775808", None),
    ("1" * 63, None),
    ("0" * 63 + "9", None),
    ("+8", None),
    ("-8", None),
    (" 8", None),
    ("8\n", None),
    ("\uff18", None),
    ("\u0668", None),
    ("8.0", None),
    ("8e0", None),
    ("0x8", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_numbers_are_those_of_kubernetes(text: str, number: int | None) -> None:
    below = None if number is None else str(number - 1)
    labels = {"count": text}
    # As a label of the node, and as the value of the selector.
    assert selects([_term("count", "Lt", "9223372036854775807")], "node-1", labels) is (
        number is not None and number < 2**63 - 1
    )
    assert selects([_term("count", "Gt", text)], "node-1", {"count": "9223372036854775807"}) is (
        number is not None and number < 2**63 - 1
    )
    if below is not None and number:
        assert selects([_term("count", "Gt", below)], "node-1", labels)


@pytest.mark.parametrize(
    "term",
    [
        _term("none", "NotIn"),
        _term("pool", "NotIn"),
        _term("pool", "In"),
        _term("pool", "Exists", "gpu"),
        _term("none", "DoesNotExist", "gpu"),
        _term("gpus", "Gt", "1", "2"),
        _term("gpus", "Lt", "10", "x"),
    ],
)
def test_an_expression_that_kubernetes_cannot_read_holds_for_no_node(
    term: NodeSelectorTerm,
) -> None:
    assert not selects([term], "node-1", LABELS)
    # Another term still counts.
    assert selects([term, _term("pool", "Exists")], "node-1", LABELS)


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
