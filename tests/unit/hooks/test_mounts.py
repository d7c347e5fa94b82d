"""Which claims of a cache stay although nobody asks for them any more."""

from __future__ import annotations

from typing import Any

import pytest

from crds.cache import LocalModelCache
from crds.nodegroup import GroupModel, LocalModelNodeGroup, RejectedModel
from hooks.cache_status import GroupView
from hooks.mounts import Mount, mounts_in_use, plan_mounts
from tests.unit.hooks.stored import read_cache

CACHE = read_cache(
    LocalModelCache.model_validate(
        {
            "metadata": {"name": "llama", "uid": "uid-llama"},
            "spec": {
                "sourceModelUri": "s3://models/llama",
                "modelSize": "1Gi",
                "nodeGroups": ["gpu", "cpu"],
            },
        }
    )
)


def _claims(name: str, namespace: str = "team-a", **metadata: Any) -> dict[str, dict[str, Any]]:
    claim = {
        "metadata": {"name": name, "namespace": namespace} | metadata,
        "spec": {"volumeName": "v"},
        "status": {"phase": "Bound"},
    }
    return {f"{namespace}/{name}": claim}


def test_claims_stay_in_the_groups_whose_nodes_have_pods() -> None:
    own = _claims("llama-gpu") | _claims("llama-cpu") | _claims("llama-gpu", "team-b")
    kept = mounts_in_use(CACHE, own, ["gpu"], frozenset())
    assert kept == [Mount("team-a", "gpu"), Mount("team-b", "gpu")]
    assert plan_mounts(CACHE, [], [], {}, kept=kept).wanted == tuple(kept)
    assert not mounts_in_use(CACHE, own, [], frozenset())


def test_no_claim_stays_that_no_new_pod_can_mount() -> None:
    going = _claims("llama-gpu", deletionTimestamp="2026-11-24T03:59:00Z")
    assert not mounts_in_use(CACHE, going, ["gpu"], frozenset())
    unbound = _claims("llama-gpu")
    unbound["team-a/llama-gpu"]["status"]["phase"] = "Pending"
    assert not mounts_in_use(CACHE, unbound, ["gpu"], frozenset())
    assert not mounts_in_use(CACHE, _claims("llama-gpu"), ["gpu"], {"team-a"})


def _model(pods: int) -> GroupModel:
    return GroupModel(name="llama", namespace="", key="0123456789abcdef", states="A", pods=pods)


@pytest.mark.parametrize(
    ("model", "reason", "may"),
    [
        (_model(0), "NodesFound", False),
        (_model(1), "NodesFound", True),
        # Not all nodes have been counted.
        (_model(0), "FindingNodes", True),
        (None, "NodesFound", True),
    ],
)
def test_a_group_that_has_not_counted_yet_may_have_pods(
    model: GroupModel | None, reason: str, *, may: bool
) -> None:
    condition = {
        "type": "Ready",
        "status": "True" if reason == "NodesFound" else "False",
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-11-24T03:30:00Z",
    }
    group = LocalModelNodeGroup.model_validate(
        {
            "metadata": {"name": "gpu"},
            "spec": {"storageLimit": "1Gi", "nodeSelector": {"pool": "gpu"}},
            "status": {"conditions": [condition]},
        }
    )
    assert GroupView(group, model, None, withheld=False).may_have_pods is may
    rejected = RejectedModel(
        name="llama", namespace="", key="0123456789abcdef", reason="ModelTooLarge", message=""
    )
    assert not GroupView(group, None, rejected, withheld=False).may_have_pods
