from __future__ import annotations

from typing import Any

from deploy.kube import meta
from deploy.local.standin.controller import only_status_changed
from deploy.local.standin.decorator import update_strings


def node(generation: int = 0, *, deleting: bool = False, **labels: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"generation": generation, "labels": labels}
    if deleting:
        metadata["deletionTimestamp"] = "now"
    return {"metadata": metadata}


def test_only_status_changed() -> None:
    assert only_status_changed(node(1), node(1))
    assert not only_status_changed(node(1), node(2))
    assert not only_status_changed(node(), node(a="b"))
    assert not only_status_changed(node(), node(deleting=True))


def test_null_removes_a_label_and_silence_keeps_it() -> None:
    obj = node(keep="1", go="2")
    assert update_strings(obj, "labels", {"go": None, "never": None, "new": "3"})
    assert meta.labels(obj) == {"keep": "1", "new": "3"}
    assert not update_strings(obj, "labels", {"never": None, "new": "3"})
    assert not update_strings(obj, "annotations", None)
