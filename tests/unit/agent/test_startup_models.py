"""Which important models a startup taint waits for."""

from __future__ import annotations

from typing import Any

import pytest

from agent.control.startup_models import FINAL_KINDS, Important, important_models
from agent.structs.failures import FailureKind
from crds.node import LocalModel, NodeModelStatus
from tests.unit.agent.helpers import local_model
from tests.unit.agent.rows import wanted

URI = "s3://bucket/model"


def entry(name: str, priority: int = 10, uri: str = "", namespace: str = "") -> LocalModel:
    uri = uri or f"s3://bucket/{name}"
    return local_model(name, uri, priority=priority, namespace=namespace)


def status(model: LocalModel, state: str, reason: str | None = None, **fields: Any) -> Any:
    return NodeModelStatus.model_validate(
        {
            "name": model.model_name,
            "namespace": model.namespace,
            "key": model.key,
            "state": state,
            "cached": state == "Downloaded",
            "reason": reason,
            **fields,
        }
    )


def judge(*models: tuple[LocalModel, str, str | None], priority: int = 10) -> Important:
    entries = wanted(*(model for model, _, _ in models))
    return important_models(entries, [status(*one) for one in models], priority)


def names(models: tuple[NodeModelStatus, ...]) -> list[str]:
    return [model.name for model in models]


@pytest.mark.parametrize(
    ("state", "reason", "where"),
    [
        ("Downloaded", None, "cached"),
        ("Downloading", None, "awaited"),
        ("Downloading", "Adopting", "awaited"),
        ("Pending", None, "awaited"),
        ("Pending", "AwaitingTurn", "awaited"),
        ("Pending", "AwaitingPlace", "awaited"),
        ("Pending", "CheckingAccess", "awaited"),
        ("Pending", "Hashing", "awaited"),
        ("Pending", "PodsUnknown", "awaited"),
        ("Pending", "CapacityFull", "given_up"),
        ("Pending", "KubeletThreshold", "given_up"),
        ("Evicted", "MadeRoom", "given_up"),
        ("Failed", "Unreachable", "awaited"),
        ("Failed", "Throttled", "awaited"),
        ("Failed", "Changed", "awaited"),
        # The node's disk: such a node serves no model.
        ("Failed", "ReadOnly", "awaited"),
        ("Failed", "Unavailable", "awaited"),
        ("Failed", "OtherDisk", "awaited"),
        *(("Failed", kind.value, "given_up") for kind in sorted(FINAL_KINDS)),
    ],
)
def test_what_is_waited_for(state: str, reason: str | None, where: str) -> None:
    found = judge((entry("llama"), state, reason))
    assert names(getattr(found, where)) == ["llama"]
    assert len(found.cached) + len(found.awaited) + len(found.given_up) == 1


def test_every_failure_is_final_or_passes() -> None:
    awaited = {"Unreachable", "Throttled", "Changed", "ReadOnly", "Unavailable", "OtherDisk"}
    assert {kind.value for kind in set(FailureKind) - FINAL_KINDS} == awaited


def test_only_models_at_or_above_the_priority_count() -> None:
    found = judge(
        (entry("high", 11), "Downloaded", None),
        (entry("at", 10), "Downloading", None),
        (entry("below", 9), "Downloading", None),
    )
    assert (names(found.cached), names(found.awaited)) == (["high"], ["at"])
    low = judge((entry("negative", -3), "Pending", None), priority=-3)
    assert names(low.awaited) == ["negative"]
    nothing = judge((entry("below", 9), "Downloading", None))
    assert nothing.states == frozenset()
    assert nothing.message == "no model of priority 10 or higher is listed for this node"


@pytest.mark.parametrize("reason", ["AwaitingLocalModelCache", "AwaitingOlderCache"])
@pytest.mark.parametrize(
    ("state", "others_reason", "is_awaited"),
    [
        ("Downloading", None, True),
        ("Pending", "AwaitingTurn", True),
        ("Failed", "Unreachable", True),
        ("Failed", "Denied", False),
        ("Evicted", "MadeRoom", False),
        ("Pending", "CapacityFull", False),
        ("Pending", "KubeletThreshold", False),
    ],
)
def test_an_entry_that_waits_for_another_cache_is_waited_for_while_that_one_comes(
    reason: str, state: str, others_reason: str | None, is_awaited: bool
) -> None:
    # The other cache need not be important itself.
    found = judge(
        (entry("other", 0, URI), state, others_reason),
        (entry("ours", 10, URI, "team"), "Pending", reason),
        (entry("unlike"), "Downloading", None),
    )
    assert ("ours" in names(found.awaited)) == is_awaited
    assert ("ours" in names(found.given_up)) == (not is_awaited)


def test_the_message_names_what_is_missing_and_how_far_it_is() -> None:
    models = [entry("llama"), entry("mistral", namespace="team"), entry("gone"), entry("here")]
    found = important_models(
        wanted(*models),
        [
            status(models[0], "Downloading", size=4 << 30, downloaded_bytes=1 << 30),
            status(models[1], "Pending", "AwaitingPlace"),
            status(models[2], "Failed", "NotFound"),
            status(models[3], "Downloaded"),
        ],
        10,
    )
    assert found.message == (
        "1 of 4 models of priority 10 or higher are cached; on the way: llama (Downloading: 1Gi of "
        "4Gi), team/mistral (Pending: AwaitingPlace); not waited for: gone (Failed: NotFound)"
    )
    one = judge((entry("llama"), "Downloaded", None))
    assert one.message == "1 of 1 model of priority 10 or higher is cached"
    many = judge(*((entry(f"m{n}"), "Pending", None) for n in range(12)))
    assert many.message.endswith("m9 (Pending) and 2 more")


def test_progress_is_no_other_state() -> None:
    model = entry("llama")
    first, second = (
        important_models(
            wanted(model), [status(model, "Downloading", size=9, downloaded_bytes=done)], 10
        )
        for done in (1, 2)
    )
    assert first.states == second.states
    failed = judge((model, "Failed", "Unreachable"))
    assert failed.states != first.states
