from __future__ import annotations

from tests.bench.peers.figures import Round, table
from tests.bench.peers.scenarios import Run

NAME = "limited origin"


def _cells(rounds: list[Round]) -> list[str]:
    (line,) = table(rounds).splitlines()[2:]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_ratio_is_to_the_direct_download_of_the_same_round() -> None:
    rounds: list[Round] = [
        {NAME: (Run(10, 1, 2), Run(12, 1.0, 20))},
        {NAME: (Run(20, 1, 2), Run(28, 1.02, 30))},
        {NAME: (Run(40, 1, 2), Run(52, 1.04, 40))},
    ]
    assert _cells(rounds) == [NAME, "28.0", "1.30", "≤ 1.5", "1.02", "≤ 1.1", "30"]


def test_a_missed_target_is_marked() -> None:
    cells = _cells([{NAME: (Run(10, 1, 2), Run(16, 1.2, 20))}])
    assert cells[3] == "≤ 1.5, missed"
    assert cells[5] == "≤ 1.1, missed"


def test_a_row_without_a_target_has_none() -> None:
    cells = _cells([{f"{NAME}, without peers": (Run(10, 1, 2), Run(80, 8, 20))}])
    assert cells[2:6] == ["8.00", "", "8.00", ""]
