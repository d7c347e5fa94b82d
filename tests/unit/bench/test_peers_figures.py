from __future__ import annotations

from tests.bench.peers.figures import Round, Row, table
from tests.bench.peers.scenarios import Run

NAME = "limited origin"


def _cells(rounds: list[Round]) -> list[str]:
    (line,) = table(rounds).splitlines()[2:]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratios_are_to_the_direct_downloads_of_the_same_round() -> None:
    rounds: list[Round] = [
        {NAME: Row(Run(12, 1.0, 20), Run(10, 1, 2), Run(24, 8, 2))},
        {NAME: Row(Run(25, 1.02, 30), Run(20, 1, 2), Run(100, 8, 2))},
        {NAME: Row(Run(52, 1.04, 40), Run(40, 1, 2), Run(52, 8, 2))},
    ]
    expected = [NAME, "25.0", "1.25", "≤ 1.3", "0.50", "", "1.02", "≤ 1.1", "30"]
    assert _cells(rounds) == expected


def test_a_missed_target_is_marked() -> None:
    cells = _cells([{NAME: Row(Run(16, 1.2, 20), Run(10, 1, 2))}])
    assert cells[3] == "≤ 1.3, missed"
    assert cells[7] == "≤ 1.1, missed"
    unlimited = {"unlimited origin": Row(Run(24, 1, 20), Run(10, 1, 2), Run(20, 1, 2))}
    assert _cells([unlimited])[4:6] == ["1.20", "≤ 1.1, missed"]


def test_a_row_without_a_target_has_none() -> None:
    cells = _cells([{f"{NAME}, without peers": Row(Run(80, 8, 20), Run(10, 1, 2))}])
    assert cells[2:8] == ["8.00", "", "", "", "8.00", ""]
