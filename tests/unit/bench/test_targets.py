"""The targets of localmodel, judged by the results of the rows."""

from __future__ import annotations

from tests.bench.rows import (
    BESIDE_HTTP,
    BESIDE_S3,
    FLOOR,
    OURS,
    PULLED,
    ROWS,
)
from tests.bench.table import Rounds, Sample
from tests.bench.targets import TARGETS, Results, target_table

GIB = 1 << 30


def _judged(rounds: dict[str, Rounds], size: int = GIB, *, judged: bool = True) -> dict[str, str]:
    """What the table says of each target, by its text."""
    found = Results(rounds, dict.fromkeys(rounds, size))
    lines = target_table(found, judged=judged).splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {
        f"{work}: {target}": f"{value} {verdict}".strip() for work, target, value, verdict in cells
    }


def test_a_ratio_is_of_one_round_and_the_cpu_is_per_gib() -> None:
    rounds = [
        {"curl": Sample(2.0), OURS: Sample(1.4, 100_000_000, 3.0)},
        {"curl": Sample(1.0), OURS: Sample(0.8, 120_000_000, 4.0)},
        {"curl": Sample(4.0), OURS: Sample(2.0, 110_000_000, 5.0)},
    ]
    assert _judged({"one-http": rounds}, 2 * GIB) == {
        "one file, http: ratio to curl ≤ 0.7": "0.70 met",
        "one file, http: CPU ≤ 1.9 s per GiB": "2.00 **missed**",
        "one file, http: ratio to the disk's floor ≤ 1.1": "not measured",
        "the agent in all rows: memory ≤ 110 MB": "120 **missed**",
    }


def test_a_reference_that_did_not_run_gives_no_verdict() -> None:
    found = _judged({"one-s3-busy": [{OURS: Sample(1.0, 100_000_000)}]})
    assert found['one file, S3, busy node: ratio to "s5cmd, then sha256" ≤ 0.9'] == "not measured"
    assert found["the agent in all rows: memory ≤ 110 MB"] == "100 met"


def test_bounds_for_the_disk_count_only_where_it_is_the_limit() -> None:
    line = {OURS: Sample(1.2), "s5cmd, then sha256 and fsync": Sample(3.0), FLOOR: Sample(1.0)}
    floor = "one file, S3: ratio to the disk's floor ≤ 1.1"
    both = 'one file, S3: ratio to "s5cmd, then sha256 and fsync" ≤ 0.6'
    slow = _judged({"one-s3": [line | {"curl": Sample(2.0), "s5cmd": Sample(0.9)}]})
    assert slow[floor] == "1.20 **missed**"
    assert slow[both] == "0.40 met"
    # localmodel's own download without syncs does not say how fast peers are.
    bare = {f"{OURS} less verification and syncs": Sample(0.5)}
    fast = _judged({"one-s3": [line | bare | {"curl": Sample(2.0), "s5cmd": Sample(1.1)}]})
    assert fast[floor] == "1.20 the disk is not the limit"
    assert fast[both] == "0.40 the disk is not the limit"


def test_a_pull_is_another_process_than_the_agent() -> None:
    pull: Rounds = [{PULLED: Sample(0.5, 50_000_000, 0.3)}]
    one: Rounds = [{OURS: Sample(1.0, 90_000_000)}]
    found = _judged({"one-s3": one, "pull": pull})
    assert found["the agent in all rows: memory ≤ 110 MB"] == "90 met"
    assert found["a pull of 1 MiB, http: memory ≤ 45 MB"] == "50 **missed**"
    assert found["a pull of 1 MiB, http: CPU ≤ 0.35 s"] == "0.30 met"


def test_latencies_are_compared_with_those_beside_s5cmd() -> None:
    beside = {
        "s5cmd": Sample(1.0, latencies=(0.01,)),
        BESIDE_HTTP: Sample(1.0, latencies=(0.011,)),
        BESIDE_S3: Sample(1.0, latencies=(0.02,)),
    }
    found = _judged({"latency": [beside]})
    of = "ratio of p99 to s5cmd ≤ 1.1"
    assert found[f"a small server beside one file, http: {of}"] == "1.10 met"
    assert found[f"a small server beside one file, S3: {of}"] == "2.00 **missed**"


def test_a_run_of_another_size_has_no_verdicts() -> None:
    rounds: Rounds = [{"curl": Sample(1.0), OURS: Sample(2.0, 1)}]
    found = _judged({"folder-s3": rounds}, judged=False)
    assert found["8 files, S3: ratio to curl ≤ 0.6"] == "2.00"
    assert not any("met" in text or "missed" in text for text in found.values())


def test_each_target_has_a_value_when_all_rows_ran() -> None:
    sample = Sample(1.0, 1_000_000, 1.0, (0.01,))
    rounds: dict[str, Rounds] = {
        row.name: [{line.name: sample for line in row.lines}] for row in ROWS
    }
    found = Results(rounds, dict.fromkeys(rounds, GIB))
    assert [target.text for target in TARGETS if target.value(found) is None] == []
