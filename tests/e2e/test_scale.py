"""300 nodes with 20 models: what each change costs, in writes, calls and bytes, not in seconds."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from crds.base import API_VERSION
from deploy.kube import kinds
from deploy.kube.kinds import CACHES, LOCAL_MODEL_NODES
from deploy.kube.raw_client import STRATEGIC_PATCH
from deploy.local.layout import CHECKOUT
from tests.bench.control import counters, objects
from tests.bench.control.follower import Follower
from tests.bench.control.measuring import Meter
from tests.bench.control.reporting import reporter
from tests.bench.control.rollout import MANAGER
from tests.bench.control.settings import Settings
from tests.bench.control.stage import Stage, stage
from tests.bench.control.tracking import Copies, Specs
from tests.e2e.conftest import METACONTROLLERS

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping

    from tests.bench.control.counters import Calls
    from tests.bench.control.measuring import Look

NODES = 300
MODELS = 20
SECONDS = 240.0
# Each controller looks at everything once a minute.
RESYNC_SECONDS = 65.0
# A call of all nodes' hooks that comes in between is not the change's.
TRIES = 3


@dataclass(frozen=True)
class Fleet:
    """The fleet when all its copies are counted, and what that took."""

    stage: Stage
    meter: Meter
    placed: Counter[str]
    counted: Counter[str]
    calls: Mapping[str, Calls]
    errors: int

    def change(self, act: Callable[[], object]) -> tuple[Counter[str], Mapping[str, Calls]]:
        """Writes and calls that follow a change, until nobody is called any more."""
        before = self.meter.look()
        act()
        assert self.stage.wait_until_idle(SECONDS)
        after = self.meter.look()
        return counters.difference(after.writes, before.writes), self.meter.calls(before, after)

    def least_calls(self, act: Callable[[], object]) -> Mapping[str, Calls]:
        tries = [self.change(act)[1] for _ in range(TRIES)]
        return min(tries, key=lambda calls: sum(one.count for one in calls.values()))


def _wait(follower: Follower, done: Callable[[], bool]) -> None:
    assert follower.expect(done).wait(time.monotonic() + SECONDS) is not None


@pytest.fixture(scope="session", params=METACONTROLLERS)
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp(f"fleet-{request.param}")
    settings = Settings(
        nodes=NODES,
        models=MODELS,
        rounds=1,
        timeout=SECONDS,
        quiet=0,
        progress=0,
        connections=8,
        work=folder,
    )
    with stage(folder / "local", CHECKOUT, request.param) as there:
        there.make_nodes(NODES)
        assert there.wait_until_idle(SECONDS)
        meter = Meter(there)
        specs, copies = Specs(), Copies(NODES)
        nodes_follower = Follower(there.cluster.api, LOCAL_MODEL_NODES, specs)
        caches_follower = Follower(there.cluster.api, CACHES, copies)
        start = meter.look()
        for number in range(1, MODELS + 1):
            there.cluster.api.apply(objects.cache(number), manager=MANAGER)
        there.cluster.api.apply(objects.group(MODELS), manager=MANAGER)
        _wait(nodes_follower, lambda: specs.total >= NODES * MODELS)
        assert there.wait_until_idle(SECONDS)
        placed = meter.look()
        with reporter(there.cluster, settings) as writer:
            writer.statuses(nodes_follower.look(lambda: specs.complete(MODELS)))
        _wait(caches_follower, lambda: copies.total >= NODES * MODELS)
        assert there.wait_until_idle(SECONDS)
        counted = meter.look()
        yield Fleet(
            there,
            meter,
            placed=_between(start, placed),
            counted=_between(placed, counted),
            calls=meter.calls(start, counted),
            errors=meter.errors(start, counted),
        )


def _between(before: Look, after: Look) -> Counter[str]:
    return counters.difference(after.writes, before.writes)


def _status(number: int, **first: Any) -> dict[str, Any]:
    """What the agent of a node reports; first: what is otherwise of its first model."""
    status = objects.node_status(MODELS, 1, datetime.now(tz=UTC))
    status["models"][0] |= first
    name = f"node-{number}"
    return {
        "apiVersion": API_VERSION,
        "kind": "LocalModelNode",
        "metadata": {"name": name},
        "status": status,
    }


def _report(fleet: Fleet, number: int, **first: Any) -> None:
    fleet.stage.cluster.api.apply(
        _status(number, **first), manager="localmodel-agent", subresource="status"
    )


def test_a_rollout_writes_each_node_once_and_its_plan_once(fleet: Fleet) -> None:
    assert fleet.placed["APPLY localmodelnodes"] == NODES
    assert fleet.placed["APPLY localmodelplacements"] <= 2
    assert fleet.placed["PUT nodes"] == 0
    # A finalizer, and a status before and after its group has found its nodes.
    assert fleet.placed["PUT localmodelcaches"] == MODELS
    assert fleet.placed["PUT localmodelcaches/status"] <= 6 * MODELS


def test_reports_write_nothing_but_labels_counts_and_statuses(fleet: Fleet) -> None:
    assert fleet.counted[counters.AGENTS] == NODES
    assert fleet.counted["APPLY localmodelnodes"] == 0
    assert fleet.counted["APPLY localmodelplacements"] == 0
    # One that meets a conflict is written again.
    assert fleet.counted["PUT nodes"] <= NODES + NODES // 10
    assert fleet.counted["PUT localmodelcaches/status"] <= 12 * MODELS


def test_no_call_fails_and_nobody_logs_an_error(fleet: Fleet) -> None:
    assert {path: one.failed for path, one in fleet.calls.items() if one.failed} == {}
    assert fleet.errors == 0


def test_what_is_sent_is_bounded_for_each_copy(fleet: Fleet) -> None:
    assert fleet.calls["/nodegroups/sync"].largest_bytes <= NODES * (2_500 + MODELS * 600)
    assert fleet.calls["/nodes/sync"].largest_bytes <= 8_000 + MODELS * 1_200
    assert fleet.calls["/caches/sync"].largest_bytes <= 8_000 + NODES * 150 + MODELS * NODES
    # The Node, the plan, what came of it, and what the agent and the labels said.
    assert fleet.calls["/nodes/sync"].count <= 8 * NODES


def test_progress_of_one_node_writes_nothing_at_all(fleet: Fleet) -> None:
    _report(fleet, 7)
    assert fleet.stage.wait_until_idle(SECONDS)
    writes, _ = fleet.change(lambda: _report(fleet, 7, lastUsedTime="2026-11-24T04:00:00Z"))
    assert writes == {counters.AGENTS: 1}
    times = iter(range(10, 60))
    calls = fleet.least_calls(
        lambda: _report(fleet, 7, lastUsedTime=f"2026-11-24T04:{next(times)}:00Z")
    )
    assert calls["/nodes/sync"].count <= 2
    assert calls["/nodegroups/sync"].count <= 3
    assert "/caches/sync" not in calls


def test_a_state_of_one_node_is_one_write_of_its_group_and_of_its_cache(fleet: Fleet) -> None:
    failed = {"state": "Failed", "cached": False, "reason": "Unreachable", "message": "refused"}
    writes, _ = fleet.change(lambda: _report(fleet, 9, **failed))
    assert writes["APPLY localmodelnodes"] == 0
    assert writes["APPLY localmodelplacements"] == 0
    # Its own label of that model.
    assert writes["PUT nodes"] == 1
    assert writes["PUT localmodelnodegroups/status"] <= 2
    assert writes["PUT localmodelcaches/status"] <= 2
    fleet.change(lambda: _report(fleet, 9))


def test_a_heartbeat_of_a_node_writes_nothing(fleet: Fleet) -> None:
    api = fleet.stage.cluster.api
    beats = iter(range(10, 60))

    def beat() -> None:
        api.request(
            "PATCH",
            kinds.NODES.path("node-11", subresource="status"),
            body={
                "status": {
                    "conditions": [
                        {
                            "type": "Ready",
                            "status": "True",
                            "lastHeartbeatTime": f"2026-11-24T04:{next(beats)}:00Z",
                        }
                    ]
                }
            },
            content_type=STRATEGIC_PATCH,
        )

    writes, _ = fleet.change(beat)
    assert {kind for kind in writes if not kind.startswith("PATCH nodes/status")} == set()
    calls = fleet.least_calls(beat)
    assert set(calls) <= {"/nodes/sync"}
    assert calls["/nodes/sync"].count <= 1


@pytest.mark.timeout(600)
def test_a_steady_fleet_writes_nothing(fleet: Fleet) -> None:
    rounds = 2 if os.environ.get("LOCALMODEL_E2E") == "full" else 1
    before = fleet.meter.look()
    time.sleep(RESYNC_SECONDS * rounds)
    assert fleet.stage.wait_until_idle(SECONDS)
    after = fleet.meter.look()
    assert _between(before, after) == {}
    # All of them were looked at meanwhile.
    assert fleet.meter.calls(before, after)["/nodes/sync"].count >= NODES
