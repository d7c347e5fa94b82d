"""Real agents wait for their turn where a group limits how many nodes download at the same time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from deploy.kube.kinds import GROUPS

if TYPE_CHECKING:
    from tests.e2e.world import World

NODES = ("node-1", "node-2", "node-3")
SECONDS = 90.0
SIZE = 3 << 20


def test_one_node_after_the_other(world: World) -> None:
    uri = world.http.put("turns.bin", b"t" * SIZE)
    for node in NODES:
        world.node(node, "turns")
    world.group("turns", download={"maxConcurrentNodes": 1})
    world.wait_condition("turns", "NodesFound", resource=GROUPS)
    world.http.bytes_per_second = SIZE / 2
    waited: set[str] = set()
    try:
        world.cache("turns", uri, "turns")
        until = time.monotonic() + SECONDS
        while not all(world.published(node, uri) for node in NODES):
            assert time.monotonic() < until
            reports = {node: world.report(node, uri) for node in NODES}
            at_it = [node for node, one in reports.items() if one.get("state") == "Downloading"]
            assert len(at_it) <= 1
            waited |= {node for node, one in reports.items() if one.get("reason") == "AwaitingTurn"}
            time.sleep(0.1)
    finally:
        world.http.bytes_per_second = 0.0
    # The first one did not, and the others said so.
    assert len(waited) == 2
    world.wait_ready("turns", 3)
    world.remove_caches("turns")
