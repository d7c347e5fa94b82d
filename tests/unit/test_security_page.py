"""Each threat of docs/security.md names tests, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

TREE = Path(__file__).parent.parent.parent


def _rows() -> list[str]:
    page = (TREE / "docs/security.md").read_text()
    table = page.partition("## Threats, and what stops them")[2].partition("\n##")[0]
    stolen = page.partition("## What a stolen token can do")[2].partition("\n##")[0]
    return [
        line
        for part in (table, stolen)
        for line in [line for line in part.splitlines() if line.startswith("| ")][2:]
    ]


def test_the_tests_that_the_threats_name_are_there() -> None:
    files = {path: path.read_text() for path in (TREE / "tests").rglob("test_*.py")}
    # Two folders may have files of one name.
    modules, code = {path.name for path in files}, "\n".join(files.values())
    assert len(_rows()) > 30
    for row in _rows():
        last = row.rstrip("| ").rpartition(" | ")[2]
        names = re.findall(r"\btest_\w+(?:\.py)?", last)
        assert names or last.startswith("none: "), row
        for name in names:
            assert name in modules or f"def {name}(" in code, name
