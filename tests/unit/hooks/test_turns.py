"""A limit of nodes that download at the same time: never more, and each node gets its turn."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crds.node_limit import nodes_of
from hooks.turns import INTERVAL_FOR_EACH_NODE, INTERVAL_MIN, PATIENCE
from tests.unit.hooks.fleet import START, Fleet

TURN = "turn"


def _fleet(limit: object, nodes: int, *caches: str) -> Fleet:
    """A Ready group with a limit and new caches."""
    fleet = Fleet({"download": {"maxConcurrentNodes": limit}})
    fleet.join(*(f"node-{number:03d}" for number in range(nodes)))
    fleet.run(4)
    assert fleet.group["status"]["conditions"][0]["reason"] == "NodesFound"
    fleet.add(*caches)
    return fleet


def _turn(fleet: Fleet) -> list[str] | None:
    assert fleet.plan is not None
    turn = fleet.plan["spec"].get(TURN)
    return None if turn is None else turn["nodes"]


@pytest.mark.parametrize(
    ("limit", "nodes", "allowed"),
    [
        ("3", 10, 3),
        ("25%", 10, 3),
        ("25%", 1000, 250),
        ("1%", 3, 1),
        ("100%", 7, 7),
        ("1%", 0, 1),
    ],
)
def test_a_limit_is_a_number_or_a_part_of_the_nodes(limit: str, nodes: int, allowed: int) -> None:
    assert nodes_of(limit, nodes) == allowed


@pytest.mark.parametrize("limit", ["0", "-1", "0%", "101%", "5.5%", "many", "", "1000000", "2%\n"])
def test_what_is_no_limit_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match="number of nodes of 1 or more, or a percentage"):
        nodes_of(limit, 10)


def test_a_new_model_begins_on_as_many_nodes_as_may_and_is_listed_on_all() -> None:
    fleet = _fleet(3, 10, "llama")
    fleet.sync()
    assert all(len(fleet.listed(name)) == 1 for name in fleet.nodes)
    assert len(fleet.downloading()) == 3
    assert sorted(fleet.downloading()) == _turn(fleet)
    # In the same write as the model.
    assert all(fleet.writes[f"node {name}"] == 2 for name in fleet.nodes)


def test_a_new_group_begins_with_none_until_its_nodes_are_known() -> None:
    fleet = Fleet({"download": {"maxConcurrentNodes": 2}})
    fleet.add("llama")
    fleet.join(*(f"node-{number}" for number in range(5)))
    fleet.sync()
    assert _turn(fleet) == []
    assert len(fleet.local_nodes) == 5
    assert not fleet.downloading()
    fleet.run(1)
    assert len(fleet.downloading()) == 2


def test_few_nodes_are_not_held_up() -> None:
    fleet = Fleet()
    fleet.add("llama")
    fleet.join("node-1", "node-2", "node-3")
    fleet.sync()
    fleet.run(INTERVAL_MIN.total_seconds())
    assert len(fleet.downloading()) == 3
    fleet.run(4)
    assert _turn(fleet) is None
    fleet.add("qwen")
    fleet.sync()
    assert _turn(fleet) is None
    assert not any(fleet.suspended(name) for name in fleet.nodes)


@pytest.mark.parametrize(
    "spec",
    [
        {"download": {"maxConcurrentNodes": "100%"}},
        {
            "nodeSelector": None,
            "persistentVolumeSpec": {
                "local": {"path": "/var/lib/localmodel"},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "pool", "operator": "In", "values": ["gpu"]}
                                ]
                            }
                        ]
                    }
                },
            },
            "persistentVolumeClaimSpec": {},
        },
    ],
    ids=["100-percent", "kserve"],
)
def test_without_a_limit_all_begin_at_once(spec: dict[str, object]) -> None:
    fleet = Fleet(spec)
    fleet.add("llama")
    fleet.join(*(f"node-{number:03d}" for number in range(150)))
    fleet.run(1)
    assert len(fleet.downloading()) == 150
    assert _turn(fleet) is None


def test_the_short_form_has_a_limit_by_default() -> None:
    fleet = Fleet()
    fleet.add("llama")
    fleet.join(*(f"node-{number:03d}" for number in range(150)))
    fleet.run(4)
    assert len(fleet.downloading()) == 100


def test_nodes_that_are_done_or_failed_make_way() -> None:
    fleet = _fleet(2, 6, "llama")
    fleet.sync()
    fleet.answer()
    first = sorted(fleet.downloading())
    fleet.report(first[0], llama="Downloaded")
    fleet.report(first[1], llama="Failed")
    fleet.run(1)
    second = fleet.downloading()
    assert len(second) == 2
    assert not second & set(first)
    # A started download is not suspended, and its entry is not written again.
    assert not any(fleet.suspended(name) for name in first)
    assert all(fleet.writes[f"node {name}"] == 2 for name in first)


def test_a_node_that_has_begun_is_never_suspended_again() -> None:
    fleet = _fleet(2, 6, "llama")
    fleet.sync()
    fleet.answer()
    begun = fleet.downloading()
    fleet.group["spec"]["download"]["maxConcurrentNodes"] = 1
    fleet.group["metadata"]["generation"] = 2
    fleet.run(10)
    assert fleet.downloading() == begun


def test_a_second_model_goes_on_with_the_nodes_that_are_at_it() -> None:
    fleet = _fleet(2, 6, "llama")
    fleet.sync()
    fleet.answer()
    first = fleet.downloading()
    fleet.add("qwen")
    fleet.run(10)
    assert fleet.downloading() == first
    assert all(len(fleet.listed(name)) == 2 for name in fleet.nodes)


def test_a_change_of_turn_writes_only_the_nodes_whose_turn_it_is() -> None:
    fleet = _fleet(2, 30, "llama")
    fleet.sync()
    fleet.answer()
    before = dict(fleet.writes)
    done = min(fleet.downloading())
    fleet.report(done, llama="Downloaded")
    fleet.run(1)
    written = {key for key in fleet.writes if fleet.writes[key] != before.get(key, 0)}
    (turned,) = {key for key in written if key.startswith("node ")}
    assert turned.removeprefix("node ") in fleet.downloading()


@pytest.mark.timeout(60)  # a group of two hundred nodes
def test_turns_change_now_and_then_and_not_with_every_node() -> None:
    fleet = _fleet(100, 200, "llama")
    fleet.sync()
    fleet.answer()
    at = fleet.writes["plan"]
    for name in sorted(fleet.downloading())[:20]:
        fleet.report(name, llama="Downloaded")
        fleet.now += timedelta(seconds=0.1)
        fleet.sync()
    interval = INTERVAL_FOR_EACH_NODE * 200
    assert fleet.writes["plan"] - at <= timedelta(seconds=2) / interval + 1
    fleet.run(2)
    assert len(fleet.downloading()) == 100


def test_a_copy_that_is_here_already_needs_no_turn_and_no_write() -> None:
    fleet = _fleet(1, 4, "llama")
    fleet.sync()
    fleet.answer()
    for name in fleet.nodes:
        fleet.report(name, llama="Downloaded")
    before = dict(fleet.writes)
    fleet.run(10)
    assert _turn(fleet) is None
    after = {key: n for key, n in fleet.writes.items() if key.startswith("node ")}
    assert after == {key: n for key, n in before.items() if key.startswith("node ")}
    # An evicted model may be downloaded again.
    name = next(name for name in sorted(fleet.nodes) if fleet.suspended(name))
    fleet.report(name, llama="Evicted")
    fleet.run(1)
    assert not fleet.suspended(name)


@pytest.mark.parametrize("reason", ["CapacityFull", "PodsUnknown", "Hashing"])
def test_a_node_that_waits_for_something_else_holds_up_nobody(reason: str) -> None:
    fleet = _fleet(1, 3, "llama")
    fleet.sync()
    fleet.answer()
    (first,) = fleet.downloading()
    fleet.report(first, llama="Pending")
    fleet.local_nodes[first]["status"]["models"][0] |= {"reason": reason, "message": "no room"}
    fleet.run(1)
    assert len(fleet.downloading() - {first}) == 1


def test_a_node_that_is_not_ready_makes_way() -> None:
    fleet = _fleet(1, 3, "llama")
    fleet.sync()
    fleet.answer()
    (first,) = fleet.downloading()
    fleet.nodes[first]["status"]["conditions"][0]["status"] = "Unknown"
    fleet.stale.add(first)
    fleet.run(2)
    assert len(fleet.downloading() - {first}) == 1


def test_an_agent_that_does_not_answer_is_not_waited_for_long() -> None:
    fleet = _fleet(2, 6, "llama")
    fleet.sync()
    fleet.silent = set(fleet.downloading())
    fleet.answer()
    fleet.run(PATIENCE.total_seconds() - 10, step=5)
    assert fleet.downloading() == fleet.silent
    fleet.run(20, step=5)
    assert len(fleet.downloading() - fleet.silent) == 2


def test_the_status_says_who_waits_and_why() -> None:
    fleet = _fleet(3, 10, "llama")
    fleet.sync()
    fleet.answer()
    fleet.run(4)
    status = fleet.group["status"]
    assert status["download"] == {"limit": 3, "downloading": 3, "waiting": 7}
    message = status["conditions"][0]["message"]
    assert "3 nodes of at most 3 download, 7 wait for their turn" in message
    assert "maxConcurrentNodes" in message
    fleet.sync_caches()
    (ready, *_) = fleet.caches["llama"]["status"]["conditions"]
    assert ready["reason"] == "Downloading"


def test_a_limit_that_is_taken_away_lets_all_begin() -> None:
    fleet = _fleet(1, 5, "llama")
    fleet.sync()
    fleet.group["spec"].pop("download")
    fleet.group["metadata"]["generation"] = 2
    fleet.run(1)
    assert len(fleet.downloading()) == 5


def test_one_more_node_begins_at_once_while_few_are_at_it() -> None:
    fleet = _fleet(2, 5, "llama")
    fleet.sync()
    for _ in range(10):
        fleet.answer()
        for name in fleet.downloading():
            fleet.report(name, llama="Downloaded")
        fleet.run(1)
    assert _turn(fleet) is None
    plans = fleet.writes["plan"]
    fleet.join("late")
    fleet.sync()
    assert fleet.downloading() == {"late"}
    assert fleet.writes["plan"] == plans
    assert fleet.writes["node late"] == 1


def test_many_nodes_that_join_later_wait_for_their_turn() -> None:
    fleet = _fleet(2, 3, "llama")
    fleet.sync()
    for _ in range(4):
        fleet.answer()
        for name in fleet.downloading():
            fleet.report(name, llama="Downloaded")
        fleet.run(1)
    assert _turn(fleet) is None
    most = 0
    for number in range(12):
        fleet.join(f"late-{number}")
        fleet.run(0.5)
        fleet.answer()
        most = max(most, len(fleet.downloading()))
    # One node may start before the group has counted the others.
    assert most <= 3
    assert len(fleet.downloading()) <= 3


@settings(max_examples=40, deadline=None)
@given(
    limit=st.integers(1, 4),
    nodes=st.integers(1, 9),
    script=st.lists(
        st.tuples(
            st.sampled_from(["Downloaded", "Failed", "answer", "new", "wait"]), st.integers(0, 99)
        ),
        max_size=25,
    ),
)
def test_never_more_than_the_limit_begin_and_all_come_to_an_end(
    limit: int, nodes: int, script: list[tuple[str, int]]
) -> None:
    fleet = _fleet(limit, nodes, "model-0")
    for what, number in script:
        begun = {(name, model) for name in fleet.nodes for model in fleet.begun(name)}
        at_it = sorted(fleet.downloading())
        if what == "new":
            fleet.add(f"model-{len(fleet.caches)}")
        elif what == "answer":
            fleet.answer()
        elif what != "wait" and at_it:
            name = at_it[number % len(at_it)]
            open_ones = {
                model["modelName"]: what
                for model in fleet.listed(name)
                if not model.get("suspend") and fleet.state(name, model["modelName"]) != "Failed"
            }
            fleet.report(name, **open_ones)
        fleet.run(1)
        assert len(fleet.downloading()) <= limit
        assert all(model in fleet.begun(name) for name, model in begun)
    for _ in range(nodes * 2 + 4):
        fleet.answer()
        for name in fleet.downloading():
            every = {model["modelName"]: "Downloaded" for model in fleet.listed(name)}
            fleet.report(name, **every)
        fleet.run(1)
    assert not fleet.downloading()
    assert not any(
        fleet.state(name, model) == "Pending" for name in fleet.nodes for model in fleet.caches
    )
    calm = fleet.snapshot()
    fleet.run(30, step=10)
    assert fleet.snapshot() == calm


def test_the_first_answer_is_the_same_until_the_plan_is_seen() -> None:
    fleet = Fleet({"download": {"maxConcurrentNodes": 1}})
    fleet.add("llama")
    fleet.sync_group()
    first = fleet.plan
    fleet.plan = None
    fleet.now = START + INTERVAL_MIN
    fleet.sync_group()
    assert fleet.plan == first
