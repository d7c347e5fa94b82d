"""Evaluation of a NodeSelector of core/v1."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crds.volumes import NodeSelectorRequirement, NodeSelectorTerm

# A label value has at most 63 characters.
_DIGITS = re.compile(r"[0-9]{1,63}", re.ASCII)
_INT64_MAX = 2**63 - 1


def selects(terms: Iterable[NodeSelectorTerm], name: str, labels: Mapping[str, str]) -> bool:
    """Whether a node matches one of the terms. Without terms, no node matches."""
    fields = {"metadata.name": name}
    return any(_term_holds(term, labels, fields) for term in terms)


def _term_holds(
    term: NodeSelectorTerm, labels: Mapping[str, str], fields: Mapping[str, str]
) -> bool:
    # An empty term matches no objects: k8s.io/component-helpers/scheduling/corev1/nodeaffinity.
    if not term.match_expressions and not term.match_fields:
        return False
    return all(_holds(r, labels) for r in term.match_expressions) and all(
        _holds(r, fields) for r in term.match_fields
    )


def _holds(requirement: NodeSelectorRequirement, values: Mapping[str, str]) -> bool:
    """Whether a requirement holds. One that Kubernetes cannot parse holds for no node."""
    value, asked = values.get(requirement.key), requirement.values
    match requirement.operator:
        case "Exists":
            return value is not None and not asked
        case "DoesNotExist":
            return value is None and not asked
        case "In":
            return value in asked
        case "NotIn":
            return bool(asked) and value not in asked
        case "Gt" | "Lt":
            return _compares(requirement, value)
        case operator:
            raise ValueError(f"{operator!r} is no operator of a node selector")


def _compares(requirement: NodeSelectorRequirement, value: str | None) -> bool:
    if len(requirement.values) != 1:
        return False
    left, right = _integer(value), _integer(requirement.values[0])
    if left is None or right is None:
        return False
    return left > right if requirement.operator == "Gt" else left < right


def _integer(text: str | None) -> int | None:
    """The label value as an int64, in decimal digits without a sign; None if it is not one."""
    if text is None or not _DIGITS.fullmatch(text):
        return None
    number = int(text)
    return number if number <= _INT64_MAX else None
