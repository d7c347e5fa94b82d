from __future__ import annotations

from typing import Any

import pytest

from deploy.local.standin.errors import SyncError
from deploy.local.standin.rules import RelatedRule


def rule(**fields: Any) -> RelatedRule:
    return RelatedRule.model_validate({"apiVersion": "v1", "resource": "things", **fields})


def thing(name: str, namespace: str = "", **labels: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": labels}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": "v1", "kind": "Thing", "metadata": metadata}


@pytest.mark.parametrize(
    ("fields", "obj", "expected"),
    [
        ({}, thing("a", "ns"), True),
        ({"labelSelector": {"matchLabels": {"k": "v"}}}, thing("a", k="v"), True),
        ({"labelSelector": {"matchLabels": {"k": "v"}}}, thing("a"), False),
        ({"namespace": "ns"}, thing("a", "ns"), True),
        ({"namespace": "ns"}, thing("a", "other"), False),
        ({"namespace": "ns"}, thing("cluster-scoped"), True),
        ({"names": ["a", "b"]}, thing("b", "anywhere"), True),
        ({"names": ["a"]}, thing("b"), False),
        ({"namespace": "ns", "names": ["a"]}, thing("a", "ns"), True),
        ({"namespace": "ns", "names": ["a"]}, thing("a", "other"), False),
        ({"namespace": "ns", "labelSelector": {}}, thing("a", "ns"), True),
        ({"names": None, "namespace": None, "labelSelector": None}, thing("a"), True),
        ({"names": []}, thing("a"), True),
    ],
)
def test_selects(fields: dict[str, Any], obj: dict[str, Any], expected: bool) -> None:
    checked = rule(**fields)
    checked.check()
    assert checked.selects(obj) is expected


SPACES = {"ns": {"team": "a"}, "other": {}}


@pytest.mark.parametrize(
    ("selector", "obj", "expected"),
    [
        ({}, thing("a", "ns"), True),
        ({"matchLabels": {"team": "a"}}, thing("a", "ns"), True),
        ({"matchLabels": {"team": "a"}}, thing("a", "other"), False),
        ({}, thing("a", "gone"), False),
    ],
)
def test_selects_by_the_labels_of_a_namespace(
    selector: dict[str, Any], obj: dict[str, Any], expected: bool
) -> None:
    checked = rule(namespaceSelector=selector, labelSelector={})
    checked.check()
    assert checked.selects(obj, SPACES.get) is expected


def test_a_selector_of_namespaces_goes_with_neither_names_nor_a_namespace() -> None:
    with pytest.raises(SyncError, match="both names and"):
        rule(namespaceSelector={}, names=["a"]).check()
    with pytest.raises(SyncError, match="both namespace and namespaceSelector"):
        rule(namespaceSelector={}, namespace="a").check()


def test_names_and_a_selector_are_refused_even_if_it_is_empty() -> None:
    with pytest.raises(SyncError, match="both names and labelSelector"):
        rule(names=["a"], labelSelector={}).check()
