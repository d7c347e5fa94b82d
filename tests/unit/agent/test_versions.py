from __future__ import annotations

from typing import Any

import pytest

from agent.cluster.versions import Versions


def form(version: str, uid: str = "a") -> dict[str, Any]:
    return {"metadata": {"uid": uid, "resourceVersion": version}}


def told(*forms: tuple[str, bool]) -> list[bool]:
    versions = Versions()
    return [versions.went_back(form(version), fresh=fresh) for version, fresh in forms]


def test_a_watch_that_is_late_is_no_older_state() -> None:
    assert told(("5", False), ("9", True), ("7", False), ("9", False)) == [False] * 4


@pytest.mark.parametrize("fresh", [True, False])
def test_an_older_state_is_seen_once(fresh: bool) -> None:
    assert told(("5", False), ("9", False), ("8", fresh), ("8", False), ("8", True)) == [
        False,
        False,
        True,
        False,
        False,
    ]


def test_an_older_state_is_older_than_what_was_read() -> None:
    assert told(("5", False), ("900", True), ("100", True)) == [False, False, True]


def test_numbers_count_and_not_their_digits() -> None:
    assert told(("9", False), ("10", False)) == [False, False]


def test_another_object_has_versions_of_its_own() -> None:
    versions = Versions()
    assert not versions.went_back(form("9"), fresh=False)
    assert not versions.went_back(form("3", "b"), fresh=False)
    assert versions.went_back(form("2", "b"), fresh=False)


def test_what_is_no_number_tells_nothing() -> None:
    assert told(("b", False), ("a", False), ("1", False)) == [False] * 3
