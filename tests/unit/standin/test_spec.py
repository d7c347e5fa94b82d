from __future__ import annotations

import copy
from typing import Any

import pytest

from deploy.local.standin.errors import RefusedError
from deploy.local.standin.spec import as_sent, duration, parse_composite, parse_decorator


def hook(path: str) -> dict[str, Any]:
    return {"version": "v2", "webhook": {"url": f"http://hooks/{path}"}}


COMPOSITE: dict[str, Any] = {
    "apiVersion": "metacontroller.k8s.io/v1alpha1",
    "kind": "CompositeController",
    "metadata": {"name": "c"},
    "spec": {
        "parentResource": {"apiVersion": "x.dev/v1", "resource": "parents"},
        "childResources": [
            {"apiVersion": "v1", "resource": "a", "updateStrategy": {"method": "InPlace"}},
            {"apiVersion": "v1", "resource": "b"},
        ],
        "generateSelector": True,
        "hooks": {"sync": hook("sync"), "customize": hook("customize")},
    },
}
DECORATOR: dict[str, Any] = {
    "apiVersion": "metacontroller.k8s.io/v1alpha1",
    "kind": "DecoratorController",
    "metadata": {"name": "d"},
    "spec": {
        "resources": [{"apiVersion": "v1", "resource": "nodes"}],
        "resyncPeriodSeconds": 60,
        "hooks": {"sync": hook("sync")},
    },
}


def changed(controller: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of a controller with one field of its spec set, or removed if the value is None."""
    copied = copy.deepcopy(controller)
    at: Any = copied["spec"]
    *parents, last = path.split(".")
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return copied


def test_a_composite() -> None:
    spec = parse_composite(COMPOSITE)
    assert [rule.update_strategy.method for rule in spec.child_resources] == ["InPlace", "OnDelete"]
    assert spec.hooks.finalize is None
    assert spec.hooks.sync.webhook.timeout_seconds == 10


def test_a_decorator() -> None:
    spec = parse_decorator(DECORATOR)
    assert spec.resync_period_seconds == 60
    assert spec.attachments == []


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("generateSelector", None, "spec.generateSelector"),
        ("generateSelector", False, "spec.generateSelector"),
        ("endpointConfigs", [{"host": "a"}], "spec.endpointConfigs.0.authorization"),
        ("parentResource.revisionHistory", {}, "spec.parentResource.revisionHistory"),
        (
            "childResources.0.updateStrategy.method",
            "RollingInPlace",
            "spec.childResources.0.updateStrategy.method",
        ),
        ("hooks.sync", None, "spec.hooks.sync"),
        ("hooks.preUpdateChild", hook("x"), "spec.hooks.preUpdateChild"),
        ("hooks.sync.version", "v1", "spec.hooks.sync.version"),
        ("hooks.sync.version", None, "spec.hooks.sync.version"),
        ("hooks.sync.webhook.etag", {}, "spec.hooks.sync.webhook.etag"),
        ("hooks.sync.webhook.timeout", "soon", "spec.hooks.sync.webhook.timeout"),
    ],
)
def test_what_a_composite_is_refused_for(path: str, value: object, field: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_composite(changed(COMPOSITE, path, value))
    assert str(caught.value).startswith(f"CompositeController c is refused: {field}: ")


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("resources", [], "spec.resources"),
        ("resources.0.annotationSelector", {}, "spec.resources.0.annotationSelector"),
        ("generateSelector", True, "spec.generateSelector"),
    ],
)
def test_what_a_decorator_is_refused_for(path: str, value: object, field: str) -> None:
    with pytest.raises(RefusedError) as caught:
        parse_decorator(changed(DECORATOR, path, value))
    assert str(caught.value).startswith(f"DecoratorController d is refused: {field}: ")


def test_hooks_see_what_the_real_one_fills_in() -> None:
    sent = as_sent(COMPOSITE)
    assert sent["status"] == {}
    assert sent["spec"]["childResources"][0]["updateStrategy"] == {
        "method": "InPlace",
        "statusChecks": {},
    }
    assert "updateStrategy" not in sent["spec"]["childResources"][1]
    assert "status" not in COMPOSITE


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400)]
)
def test_duration(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "s", "10s!", "-1s"])
def test_not_a_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration(text)
