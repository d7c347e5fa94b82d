"""Each row of docs/kserve-tests.md names tests that are there, or says why there is none."""

from __future__ import annotations

import re
from pathlib import Path

from tests.fixtures import CASES

TREE = Path(__file__).parent.parent.parent
PAGE = TREE / "docs/kserve-tests.md"


def _rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if not row[0].strip().startswith("**")]


def test_the_tests_that_it_names_are_there() -> None:
    paths = list((TREE / "tests").rglob("*.py"))
    files = {path.name for path in paths}
    code = "\n".join(path.read_text() for path in paths)
    assert len(_rows()) > 40
    for row in _rows():
        assert len(row) == 3, row
        here = row[-1].rstrip("| ")
        names = re.findall(r"`(?:[a-z0-9_/]+/)?(test_\w+(?:\.py)?)`", here)
        assert names or here.startswith("none: "), row
        for name in names:
            assert name in files or f"def {name}(" in code, name


def test_the_fixtures_that_it_names_are_there() -> None:
    there = {name.partition("/")[2] for name in CASES.names}
    named = set(re.findall(r"`((?:sync|finalize)/[a-z-]+)`", PAGE.read_text()))
    assert len(named) >= 3
    assert named <= there


def test_it_is_told_of() -> None:
    assert "(kserve-tests.md)" in (TREE / "docs/kserve.md").read_text()
