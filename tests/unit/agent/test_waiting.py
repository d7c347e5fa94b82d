"""Why downloads wait for room, in words."""

from __future__ import annotations

import pytest

from agent.capacity.holdings import Account
from agent.capacity.ledger import Shortage
from agent.control.waiting import waiting_of
from agent.structs.kubelet import DEFAULT_THRESHOLDS, FileSystem, Sharing, bound_of

GIB = 1 << 30


@pytest.mark.parametrize(
    ("needed", "what", "todo"),
    [
        (70, "it needs 70Gi, and 60Gi may be taken of the node's", "free space on the node"),
        (83, "it needs 83Gi, and 60Gi may be taken of the node's", "free space on the node"),
        (
            84,
            "it needs 84Gi, which is more than all of the 83Gi that may be taken of the node's",
            "Use nodes with larger disks",
        ),
    ],
)
def test_a_model_that_can_never_fit_beside_the_kubelet_says_so(
    needed: int, what: str, todo: str
) -> None:
    kubelet = bound_of(
        DEFAULT_THRESHOLDS,
        Sharing(frozenset(FileSystem)),
        capacity=100 * GIB,
        available=77 * GIB,
        used=23 * GIB,
    )
    assert kubelet is not None
    mark = kubelet.mark
    account = Account("", disk=True, limit=mark, high=mark, low=mark, kubelet=True)
    shortage = Shortage(account, needed * GIB, 60 * GIB)
    (found,) = waiting_of({"x": shortage}, pods_known=True, kubelet=kubelet).values()
    assert found.reason == "KubeletThreshold"
    assert found.message.startswith(f"{what} disk: ")
    assert "imageGCHighThresholdPercent=85, so the agent leaves 17% (17Gi) of it" in found.message
    for advice in ("free space on the node", "Use nodes with larger disks"):
        assert (advice in found.message) is (advice == todo)
    assert "ount a disk of their own for the models" in found.message
