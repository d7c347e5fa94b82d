"""What status, du and the matrix say of a cluster."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest

from deploy.kubectl import du, explain
from deploy.kubectl.cells import CellState, cells_of_cache, matrix
from deploy.kubectl.output import plain
from deploy.kubectl.overview import overview, with_trouble_first
from deploy.kubectl.printable import escaped
from deploy.kubectl.snapshot import snapshot_of
from deploy.kubectl.status import NODES_SHOWN, headline, rendered
from deploy.kubectl.ui.wire import Board
from deploy.kubectl.usage import usage
from deploy.kubectl.why import why
from tests.bench.control import objects as bench
from tests.unit.kubectl.objects import (
    GIB,
    KEY,
    NOW,
    ago,
    cache,
    cluster,
    condition,
    entry,
    local_model_node,
    node,
    report,
)

NODES, MODELS = 1000, 50
# A fifth of the time on an idle core: `status` as a whole shall take two seconds.
CPU_SECONDS = 5.0


def test_a_cell_for_each_state() -> None:
    reports = {
        "node-1": report(pods=2, lastUsedTime=ago(60)),
        "node-2": report(
            "Downloading", size=GIB, downloadedBytes=GIB // 2, bytesPerSecond=GIB // 8
        ),
        "node-3": report("Failed", reason="TLS", message="m", attempts=3, nextRetryTime=ago(-9)),
        "node-4": report("Evicted", reason="MadeRoom"),
        "node-5": report("Tomorrows"),
    }
    snapshot = cluster(*(local_model_node(name, one) for name, one in reports.items()))
    cells = matrix(snapshot).cells[("", "llama")]
    assert {name: cell.state.value for name, cell in cells.items()} == {
        "node-1": "available",
        "node-2": "downloading",
        "node-3": "failed",
        "node-4": "evicted",
        "node-5": "waiting",
    }
    assert (cells["node-1"].percent, cells["node-1"].pods) == (100, 2)
    assert (cells["node-2"].percent, cells["node-2"].eta) == (50, ago(-4))
    assert (cells["node-3"].attempts, cells["node-3"].next_try) == (3, ago(-9))
    assert cells == cells_of_cache(snapshot, ("", "llama"))


def test_a_node_in_two_groups_of_a_cache_has_one_cell() -> None:
    entries = [entry(nodeGroup="gpu"), entry(nodeGroup="large")]
    snapshot = cluster(local_model_node("node-1", report(), entries=entries))
    found = matrix(snapshot)
    assert found.cells[("", "llama")]["node-1"].state is CellState.AVAILABLE
    assert cells_of_cache(snapshot, ("", "llama")) == found.cells[("", "llama")]


@pytest.mark.parametrize(
    "fields",
    [
        {"size": 700 * GIB, "bytesPerSecond": 2},
        {"size": (1 << 63) - 1, "bytesPerSecond": 1},
        {"size": GIB, "bytesPerSecond": -5},
        {"size": GIB, "bytesPerSecond": 1, "estimatedCompletionTime": "2026-11-28T12:00:00"},
        {"size": GIB, "bytesPerSecond": 1, "estimatedCompletionTime": "some day"},
    ],
)
def test_no_report_of_one_agent_breaks_the_others(fields: dict[str, Any]) -> None:
    slow = report("Downloading", downloadedBytes=1, nextRetryTime="9999-12-31T23:59:59Z", **fields)
    snapshot = cluster(local_model_node("node-2", slow))
    cell = matrix(snapshot).cells[("", "llama")]["node-2"]
    assert cell.eta == fields.get("estimatedCompletionTime", "")
    assert "node-2" in plain(rendered(overview(snapshot), snapshot, everything=True))
    assert Board().advance(snapshot) is not None
    assert why(snapshot, ("", "llama"), "node-2").links
    assert usage(snapshot).nodes


def test_a_cell_of_a_node_that_is_not_ready_and_one_without_a_report() -> None:
    away = local_model_node("node-2", entries=[entry(), entry("phi", sourceModelUri="s3://phi")])
    found = matrix(cluster(away, node("node-2", ready="False")))
    cell = found.cell(("", "llama"), "node-2")
    assert cell is not None
    assert (cell.state, cell.cached) == (CellState.NOT_READY, True)
    there = matrix(cluster(away)).cell(("", "phi"), "node-2")
    assert there is not None
    assert there.state is CellState.UNREPORTED
    assert found.cell(("", "phi"), "node-1") is None


def test_a_copy_of_a_former_uri_does_not_hide_the_present_one() -> None:
    former = report("Removing", cached=True, key="0" * 16)
    cells = matrix(cluster(local_model_node("node-1", report(), former))).cells
    assert cells[("", "llama")]["node-1"].state is CellState.AVAILABLE
    gone = matrix(cluster(local_model_node("node-1", former, entries=[])))
    cell = gone.cell(("", "llama"), "node-1")
    assert cell is not None
    assert cell.state is CellState.REMOVING


def test_what_kserves_agent_reports() -> None:
    theirs = local_model_node("node-1", modelStatus={"llama": "ModelDownloaded"}, models=[])
    cell = matrix(cluster(theirs)).cell(("", "llama"), "node-1")
    assert cell is not None
    assert cell.state is CellState.AVAILABLE


def test_the_overview_counts() -> None:
    failed = report("Failed", reason="TLS", message="m")
    broken = condition("DiskReady", "False", "ReadOnly", "mount it")
    snapshot = cluster(
        cache(condition("Ready", "False", "DownloadFailed", "on 1 of 3 nodes")),
        local_model_node("node-2", failed, conditions=(broken,)),
        local_model_node("node-3", report("Downloading", size=GIB, bytesPerSecond=GIB)),
    )
    found = overview(snapshot)
    assert found.copies == {"available": 1, "failed": 1, "downloading": 1}
    (model,) = found.models
    assert (model.available, model.total, model.rate) == (1, 3, GIB)
    assert with_trouble_first(found.nodes)[0].problem == "ReadOnly: mount it"
    assert headline(found) == (
        "1 model on 3 nodes: 1 of 3 copies available, 1 downloading, 1 failed at 1Gi/s"
    )
    text = plain(rendered(found, snapshot, everything=False))
    assert "llama: DownloadFailed: on 1 of 3 nodes\n" in text


def test_where_bytes_came_from_is_shown_where_nodes_exchange_models() -> None:
    alone = local_model_node("node-1", report(originBytes=3 * GIB, peerBytes=0))
    text = plain(rendered(overview(cluster(cache(), alone)), cluster(), everything=True))
    assert "PEERS" not in text
    helped = local_model_node("node-2", report(originBytes=GIB, peerBytes=2 * GIB))
    snapshot = cluster(cache(), alone, helped)
    found = overview(snapshot)
    (model,) = found.models
    assert (model.origin_bytes, model.peer_bytes) == (4 * GIB, 2 * GIB)
    lines = plain(rendered(found, snapshot, everything=True)).splitlines()
    (title,) = (line.split() for line in lines if line.startswith("MODEL"))
    (row,) = (line.split() for line in lines if line.startswith("llama"))
    shown = dict(zip(title, row, strict=True))
    assert (shown["ORIGIN"], shown["PEERS"]) == ("4Gi", "2Gi")


def test_long_lists_are_cut_and_hidden_kinds_are_named() -> None:
    nodes = [local_model_node(f"node-{number:02d}") for number in range(NODES_SHOWN + 5)]
    snapshot = cluster(*nodes, without=("LocalModelNode",), forbidden={"Node": "no"})
    text = plain(rendered(overview(snapshot), snapshot, everything=False))
    assert "and 5 more nodes; --all shows them\n" in text
    assert "not visible to you, or not installed: Node\n" in text
    whole = plain(rendered(overview(snapshot), snapshot, everything=True))
    assert "node-24" in whole
    assert "--all" not in whole


def test_a_thousand_nodes_and_fifty_models() -> None:
    status = bench.node_status(MODELS, 1, NOW, 0.5)
    spec = bench.node_spec(MODELS)
    nodes = [
        {"metadata": bench.node_metadata(f"node-{number}"), "spec": spec, "status": status}
        for number in range(NODES)
    ]
    found = {
        "LocalModelNode": nodes,
        "LocalModelCache": [bench.cache(number) for number in range(1, MODELS + 1)],
        "LocalModelNodeGroup": [bench.group(MODELS)],
    }
    snapshot = snapshot_of(found, at=NOW)
    began = process_time()
    made = overview(snapshot)
    plain(rendered(made, snapshot, everything=False))
    assert process_time() - began < CPU_SECONDS
    assert made.copies == {"downloading": NODES * MODELS}


def test_the_use_of_disks() -> None:
    two = [entry(nodeGroup="gpu"), entry("twin", namespace="team", nodeGroup="gpu")]
    shared = local_model_node(
        "node-1", report(pods=1), report(name="twin", namespace="team"), entries=two
    )
    gone = report("Removing", name="old", key="0" * 16, diskBytes=GIB, cached=True)
    foreign = condition("ForeignDirectories", "True", "Found", "models/x is not ours")
    idle = local_model_node("node-2", report(), gone, conditions=(foreign,))
    found = usage(cluster(shared, idle))
    assert [(one.key, one.copies, one.bytes) for one in found.models] == [
        (KEY, 2, 2 * GIB),
        ("0" * 16, 1, GIB),
    ]
    assert found.models[0].caches == ("llama", "team/twin")
    by_name = {one.name: one for one in found.nodes}
    busy = by_name["node-1"]
    assert (busy.models, busy.evictable, busy.other) == (GIB, 0, 39 * GIB)
    free = by_name["node-2"]
    assert (free.models, free.evictable, free.removing) == (2 * GIB, GIB, GIB)
    assert free.foreign == "models/x is not ours"


def test_words_of_objects_are_neither_markup_nor_control_characters() -> None:
    words = "[abc] and [/x] and \x1b[31m\x9b2J\u202eevil\x07 [bold]x"
    foreign = condition("ForeignDirectories", "True", "Found", words)
    broken = condition("DiskReady", "False", "ReadOnly", words)
    failed = report("Failed", reason="TLS", message=words)
    snapshot = cluster(
        cache(condition("Ready", "False", "DownloadFailed", words)),
        local_model_node("node-1", failed, conditions=(foreign, broken)),
    )
    shown = "[abc] and [/x] and [31m2Jevil [bold]x"
    found = usage(snapshot)
    chain = why(snapshot, ("", "llama"), "node-1")
    for text in (
        plain(du.rendered(found, everything=True)),
        plain(du._node(found.nodes[0], NOW)),
        plain(rendered(overview(snapshot), snapshot, everything=True)),
        plain(explain.rendered(chain, NOW, lines=True)),
    ):
        assert shown in text
        assert "\x1b" not in text
    assert json.loads(escaped(json.dumps(words, ensure_ascii=False))) == words


def test_what_cannot_be_evicted() -> None:
    def evictable(**fields: Any) -> int:
        made = local_model_node("node-1", entries=[entry(**{"nodeGroup": "gpu"} | fields)])
        return usage(cluster(made, without=("LocalModelNode",))).nodes[0].evictable

    assert evictable() == GIB
    assert evictable(retention="Pinned") == 0
    assert evictable(referenced=True) == 0
    assert evictable(nodeGroup="other") == 0
