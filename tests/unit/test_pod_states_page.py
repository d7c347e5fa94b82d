"""Each state of docs/pod-states.md names the test that proves it, and each of these tests a row."""

from __future__ import annotations

import re
from pathlib import Path

TREE = Path(__file__).parent.parent.parent
PAGE = (TREE / "docs/pod-states.md").read_text()
STATES = (TREE / "tests/e2e/test_pod_states.py").read_text()
NODES = (TREE / "tests/e2e/test_real_nodes.py").read_text()


def _tests(code: str) -> set[str]:
    return set(re.findall(r"^def (test_\w+)\(", code, re.MULTILINE))


def test_the_tests_that_the_states_name_are_there() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.rstrip("| ").rpartition(" | ")[2])
        assert named, row
        assert set(named) <= _tests(STATES) | _tests(NODES), row


def test_each_test_of_a_state_is_on_the_page() -> None:
    assert _tests(STATES) <= set(re.findall(r"`(test_\w+)`", PAGE))
