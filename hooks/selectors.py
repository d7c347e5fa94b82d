"""Whether a node is selected, by the rules of core/v1 NodeSelector."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from crds.volumes import NodeSelectorRequirement, NodeSelectorTerm


def selects(terms: Iterable[NodeSelectorTerm], name: str, labels: Mapping[str, str]) -> bool:
    """Whether one of the terms holds for a node; no term holds for none."""
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
    value = values.get(requirement.key)
    match requirement.operator:
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Gt" | "Lt":
            return _compares(requirement, value)
        case operator:
            raise ValueError(f"{operator!r} is no operator of a node selector")


def _compares(requirement: NodeSelectorRequirement, value: str | None) -> bool:
    try:
        left, right = int(value or ""), int(requirement.values[0])
    except (ValueError, IndexError):
        return False
    return left > right if requirement.operator == "Gt" else left < right
