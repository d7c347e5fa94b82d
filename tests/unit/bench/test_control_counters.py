"""What is read from the API server's metrics and from the logs."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.bench.control.counters import accepted, calls, difference, errors, writes
from tests.bench.control.usage import busy_seconds, cpu_seconds


def metric(verb: str, resource: str, count: str, subresource: str = "", code: str = "200") -> str:
    return (
        f'apiserver_request_total{{code="{code}",component="apiserver",dry_run="",group="g",'
        f'resource="{resource}",scope="resource",subresource="{subresource}",verb="{verb}",'
        f'version="v1"}} {count}'
    )


def test_writes_are_counted_by_kind() -> None:
    text = "\n".join(
        [
            "# HELP apiserver_request_total Counter of requests",
            metric("APPLY", "localmodelnodes", "1000", code="201"),
            metric("APPLY", "localmodelnodes", "1.5e+03"),
            metric("APPLY", "localmodelnodes", "7", subresource="status"),
            metric("PUT", "nodes", "3"),
            metric("PUT", "nodes", "2", code="409"),
            metric("GET", "nodes", "99"),
            metric("PUT", "leases", "50"),
            metric("POST", "events", "9"),
            'apiserver_request_duration_seconds_count{verb="PUT"} 5',
        ]
    )
    assert writes(text) == {
        "APPLY localmodelnodes": 2500,
        "APPLY localmodelnodes/status": 7,
        "PUT nodes": 3,
        "PUT nodes (409)": 2,
    }
    assert accepted(writes(text)) == 2510


def test_a_difference_has_only_what_was_added() -> None:
    after = Counter({"PUT a": 5, "PUT b": 2, "PUT c": 1})
    assert difference(after, Counter({"PUT a": 5, "PUT b": 1})) == {"PUT b": 1, "PUT c": 1}


def test_calls_of_hooks() -> None:
    found = calls(
        [
            "/nodegroups/sync 200 1000 50 2000000",
            "/nodegroups/sync 200 3000 50 1000000",
            # Metacontroller has hung up by then.
            "/nodegroups/sync 200 3000 50 30500000",
            "/nodes/sync 500 - 20 900",
            "/nodes/sync 200 - 20 10500000",
            "/readyz 200 - 3 100",
            "cut off /nodes/sync 200",
        ]
    )
    assert list(found) == ["/nodegroups/sync", "/nodes/sync"]
    group = found["/nodegroups/sync"]
    assert (group.count, group.request_bytes, group.largest_bytes) == (3, 7000, 3000)
    assert group.slowest_seconds == pytest.approx(30.5)
    assert group.failed == 1
    assert (found["/nodes/sync"].count, found["/nodes/sync"].failed) == (2, 2)


def test_errors_of_both_metacontrollers() -> None:
    lines = [
        '{"level":"error","ts":"2026-11-28T01:09:46Z","msg":"sync failed"}',
        '{"level":"info","ts":"2026-11-28T01:09:46Z","msg":"no error"}',
        "2026-11-28 01:09:46 ERROR sync failed",
        "a stack of the first",
    ]
    assert errors(lines) == 2


def test_cpu_seconds_have_those_of_ended_children() -> None:
    fields = ["S", *["0"] * 10, "100", "200", "30", "40", *["0"] * 30]
    assert cpu_seconds(f"1 (a name) {' '.join(fields)}") == pytest.approx(3.7)


def test_busy_seconds_of_the_machine() -> None:
    text = "cpu  100 10 50 9999 888 1 2 37 5 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert busy_seconds(text) == pytest.approx(2.0)
