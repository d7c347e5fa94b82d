"""A small part of `make faults`, so that it does not rot; and that it tells what it should."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import requests

from tests.faults import hostile, peers
from tests.faults.__main__ import PARTS, _check, _parser
from tests.faults.disk import Disk, Model, write_tree
from tests.faults.life import seen_keys
from tests.faults.overcommit import Use, offline_lru
from tests.faults.report import Row, failures, table
from tests.faults.watcher import Watcher

if TYPE_CHECKING:
    from pathlib import Path

MODEL = Model("m", "mem://m", {"config.json": b"{}", "deep/w.bin": b"weights"})


@pytest.mark.timeout(400)  # runs agents with twenty faults
def test_some_faults_of_the_disk_and_some_kills() -> None:
    seed = str(random.randrange(10**6))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.faults", "--seed", seed),
            *("--parts", "io_errors,crashes", "--sample", "2"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "| **20** | **20** | **0** |" in done.stdout
    assert f"SEED={seed}." in done.stdout


def test_one_round_of_faults_of_peers(tmp_path: Path) -> None:
    rows = peers.run(tmp_path, random.randrange(10**6), 0.0)
    assert [(row.injected, row.failures, row.lost) for row in rows] == [(1, [], 0)] * 6


def test_the_cache_that_overcommit_is_measured_by() -> None:
    sizes = {"a": 1, "b": 1, "c": 1, "large": 2}

    def downloads(*uses: tuple[str, float, float], limit: int = 2) -> int:
        return offline_lru(sizes, limit, [Use(*use) for use in uses])

    assert downloads(("a", 1, 1), ("b", 2, 2), ("a", 3, 3)) == 2
    # b is the least recently used, and comes again.
    assert downloads(("a", 1, 1), ("b", 2, 2), ("a", 3, 3), ("c", 4, 4), ("b", 5, 5)) == 4
    assert downloads(("a", 1, 1), ("b", 2, 2), ("a", 3, 3), ("c", 4, 4), ("a", 5, 5)) == 3
    # What is in use stays, although it is the older one.
    assert downloads(("a", 1, 9), ("b", 2, 2), ("c", 4, 4), ("a", 5, 5)) == 3
    assert downloads(("a", 1, 1), ("b", 2, 2), ("large", 3, 3), ("a", 4, 4)) == 4


def test_what_is_wrong_on_a_disk_at_any_time(tmp_path: Path) -> None:
    theirs = {"theirs": {"file": b"x"}}
    disk = Disk(tmp_path, [MODEL], theirs, wanted=frozenset({MODEL.key}))
    copy = tmp_path / "models" / MODEL.key
    write_tree(tmp_path / "models" / "theirs", theirs["theirs"])
    assert disk.losses() == []
    write_tree(copy, {"config.json": b"{}"})
    (loss,) = disk.losses()
    assert loss.size == 9
    assert "m is published and is not the model: config.json 2 bytes" in loss.what
    write_tree(copy, MODEL.files)
    assert disk.losses() == []

    # Once it is whole, it stays.
    copy.rename(tmp_path / "away")
    (loss,) = disk.losses()
    assert (loss.size, loss.what) == (9, "m is wanted, and was taken away")
    (tmp_path / "away").rename(copy)
    (tmp_path / "models" / "theirs" / "file").write_bytes(b"y")
    write_tree(tmp_path / "models" / "new", {"a": b"1"})
    assert {loss.what for loss in disk.losses()} == {
        "foreign directory theirs was touched",
        "models/new is nobody's",
    }
    assert [loss.what for loss in disk.losses({"new"})] == ["models/new is nobody's"]


def test_half_a_view_is_wrong_at_any_time(tmp_path: Path) -> None:
    disk = Disk(tmp_path, [MODEL])
    write_tree(tmp_path / "models" / MODEL.key, MODEL.files)
    volume = tmp_path / "volumes" / MODEL.key / "models"
    volume.mkdir(parents=True)
    (tmp_path / ".localmodel").mkdir()
    assert disk.losses() == []
    lost, _ = disk.not_at_end([MODEL])
    assert [loss.what for loss in lost] == ["the volume of m does not show it"]
    write_tree(volume / MODEL.key, {"config.json": b"{}"})
    (loss,) = disk.losses()
    assert loss.what == f"volumes/{MODEL.key} shows what is no model: config.json 2 bytes"
    assert disk.losses({MODEL.key}) == [loss]
    assert disk.losses({"other"}) == []
    write_tree(volume / MODEL.key, MODEL.files)
    assert disk.losses() == []
    write_tree(tmp_path / "volumes" / ".new" / MODEL.key, {"config.json": b"{}"})
    _, problems = disk.not_at_end([MODEL])
    assert any("is left of a view" in problem for problem in problems)


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("/disk/models/a/deep/w.bin", {"a"}),
        ("/disk/models/a", {"a"}),
        ("/disk/volumes/b/models/b", {"b"}),
        ("/disk/volumes/.new/b", set()),
        ("/disk/models", set()),
        ("/disk/.localmodel/a/files", set()),
        ("/disk-2/models/a", set()),
        ("", set()),
    ],
)
def test_the_models_that_a_call_may_have_changed_for_pods(path: str, keys: set[str]) -> None:
    assert seen_keys("/disk", path) == keys
    assert seen_keys("/disk", path, "/disk/models/c") == keys | {"c"}


def test_what_is_missing_and_left_over_in_the_end(tmp_path: Path) -> None:
    disk = Disk(tmp_path, [MODEL])
    write_tree(tmp_path / ".localmodel" / "0123456789abcdef" / "files", {"a": b"1"})
    write_tree(tmp_path / "models" / "other", {"a": b"1"})
    lost, problems = disk.not_at_end([MODEL])
    assert [(loss.size, loss.what) for loss in lost] == [(9, "m is wanted, and is not there")]
    assert problems == [
        "m is Nothing: ",
        "models/other is not wanted, and is there",
        ".localmodel/0123456789abcdef is left over: ['files']",
    ]


def test_the_watcher_tells_half_a_model_once(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path, [MODEL])
    copy = tmp_path / "node-1" / "models" / MODEL.key
    copy.parent.mkdir(parents=True)
    assert watcher.look() == {}
    write_tree(copy, {"config.json": b"{}"})
    assert list(watcher.look().values()) == [9]
    assert watcher.look() == {}
    write_tree(copy, MODEL.files)
    assert watcher.look() == {}
    (copy / "deep" / "w.bin").write_bytes(b"WEIGHTS")
    assert list(watcher.look().values()) == [9]


def test_the_stores_of_the_tenants_let_others_list_alone_and_harm_whom_they_are_told_to() -> None:
    mine = {"good/weights": b"weights"}
    with hostile.serve({"team": mine}, ["team"]) as origins, requests.Session() as web:
        web.trust_env = False
        store, (harmful, *_) = origins.stores["team"], origins.harmful["team"]

        def ask(place: str, who: str) -> requests.Response:
            return web.get(
                f"{place}/team-models/good/weights?X-Amz-Credential={who}%2Fx",
                headers={"Range": "bytes=0-6"},
                timeout=30,
            )

        def listed(place: str, who: str) -> str:
            return web.get(f"{place}/team-models?X-Amz-Credential={who}%2Fx", timeout=30).text

        assert ask(store, "team").content == b"weights"
        assert ask(store, "big-team").status_code == 403
        assert "<Size>7</Size>" in listed(store, "big-team")
        web.post(store + hostile.REFUSE, timeout=30)
        assert ask(store, "team").status_code == 403
        web.post(store + hostile.SERVE, timeout=30)
        assert ask(store, "team").content == b"weights"
        assert ask(harmful, "other-bytes").content == bytes(byte ^ 255 for byte in b"weights")
        assert f"<Size>{hostile.FALSE_SIZE}</Size>" in listed(harmful, "false-sizes")
        assert "good/weights-of-another" in listed(harmful, "other-files")
        assert "NextContinuationToken" in listed(harmful, "pages")
        assert web.get(f"{harmful}/missing", timeout=30).status_code == 404


def test_the_table_counts_and_a_failure_says_where() -> None:
    good, bad = Row("crashes", "SIGKILL"), Row("io_errors", "EIO")
    good.take([], 0)
    bad.take([], 0)
    bad.take(["call 7: it is gone"], 1200)
    skipped = Row("small_disk", "full", skipped="only root may mount")
    assert [row.is_good for row in (good, bad, skipped)] == [True, False, True]
    assert table([good, bad, skipped]).splitlines()[2:] == [
        "| `crashes` | SIGKILL | 1 | 1 | 0 |",
        "| `io_errors` | EIO | 2 | 1 | 1,200 |",
        "| `small_disk` | full | skipped: only root may mount | | |",
        "| | **all** | **3** | **2** | **1,200** |",
    ]
    assert failures([good, bad]) == "io_errors: EIO: call 7: it is gone"


@pytest.mark.parametrize(
    ("arguments", "parts", "message"),
    [
        ([], ["earthquakes"], "there is no part earthquakes"),
        (["--write"], ["crashes"], "only a run of all parts"),
        (["--write", "--sample", "2"], list(PARTS), "only a run of all parts"),
        (["--write", "--attacks", "first"], list(PARTS), "only a run of all parts"),
        (["--attacks", "sorcery"], ["tenants"], "there is no attack sorcery"),
    ],
)
def test_what_cannot_be_run(arguments: list[str], parts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _check(_parser().parse_args(arguments), parts)
