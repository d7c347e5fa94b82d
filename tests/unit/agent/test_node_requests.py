"""Annotations of a LocalModelNode that request an eviction or a verification."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agent.control.node_requests import MAX_AHEAD, NOTHING_ASKED, Asked, node_requests
from crds.node_requests import Operation, format_request_time, request_annotation

NOW = datetime(2026, 8, 1, 12, 0, tzinfo=UTC)
KEY = "c277d78a31bc6624"
EVICT = request_annotation(Operation.EVICT, KEY)
VERIFY = request_annotation(Operation.VERIFY, KEY)


def test_annotations_are_read_by_key() -> None:
    found = node_requests(
        {EVICT: "2026-08-01T13:59:00+02:00", VERIFY: "2026-08-01T11:00:00.25Z", "other": "text"},
        NOW,
        verifies=True,
    )
    assert f"evict.localmodel.serving.kserve.io/{KEY}" == EVICT
    assert found.problems == frozenset()
    assert found.of(KEY, NOW) == Asked(
        datetime(2026, 8, 1, 11, 59, tzinfo=UTC), datetime(2026, 8, 1, 11, 0, 0, 250_000, UTC)
    )
    assert found.of("0" * 16, NOW) == NOTHING_ASKED


def test_a_time_is_written_as_it_is_read() -> None:
    time = NOW + timedelta(microseconds=1234)
    found = node_requests({EVICT: format_request_time(time)}, NOW + MAX_AHEAD, verifies=True)
    assert found.by_key[KEY].evict == time


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        (EVICT, "now", "'now' is not a time"),
        (EVICT, "2026-08-01", "is not a time"),
        (EVICT, "2026-08-01T12:00:00", "is not a time"),
        (EVICT, "2026-02-30T12:00:00Z", "day"),
        (EVICT, "0001-01-01T00:00:00+10:00", "outside of the years"),
        (EVICT, "2026-08-01T12:11:00Z", "is far ahead of the node's clock"),
        (EVICT[:-1], "2026-08-01T12:00:00Z", "is not a key of 16 hex digits"),
        (f"{EVICT[:-1]}X", "2026-08-01T12:00:00Z", "is not a key of 16 hex digits"),
    ],
)
def test_a_malformed_request_is_a_problem(name: str, value: str, why: str) -> None:
    found = node_requests({name: value}, NOW, verifies=True)
    assert not found.by_key
    (problem,) = found.problems
    assert problem.startswith(f"the annotation {name} is ignored: ")
    assert why in problem


def test_an_agent_that_reads_nothing_verifies_nothing() -> None:
    time = format_request_time(NOW)
    found = node_requests({EVICT: time, VERIFY: time}, NOW, verifies=False)
    assert found.by_key[KEY] == Asked(evict=NOW)
    (problem,) = found.problems
    assert "--scrub-bytes-per-second of this agent is 0" in problem


def test_a_request_waits_until_its_time_has_come() -> None:
    soon = NOW + MAX_AHEAD
    found = node_requests({EVICT: format_request_time(soon)}, NOW, verifies=True)
    assert found.problems == frozenset()
    assert found.of(KEY, NOW) == NOTHING_ASKED
    assert found.of(KEY, soon) == Asked(evict=soon)
