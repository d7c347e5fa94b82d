from __future__ import annotations

from tests.bench.starts.figures import Round, table


def _cells(rounds: list[Round]) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in table(rounds).splitlines()[2:]]
    return {cells[0].partition(":")[0]: [cell.strip() for cell in cells] for cells in lines}


def test_ratio_and_difference_are_of_the_same_round() -> None:
    found = _cells([Round(1.0, 1.1, 0.4, 0), Round(2.0, 2.1, 0.5, 0), Round(4.0, 4.1, 0.6, 0)])
    assert found["bare"][2] == "2.00 (4.00)"
    assert found["warm"][2:5] == ["2.10 (4.10)", "1.05", "0.10"]
    assert found["cold"][2:4] == ["0.50 (0.60)", "0.25"]
    assert not any("missed" in cell for cells in found.values() for cell in cells)


def test_a_missed_target_is_marked() -> None:
    assert "missed" in _cells([Round(1.0, 1.4, 0.4, 0)])["warm"][5]
    assert "missed" in _cells([Round(1.0, 1.0, 0.4, 1)])["warm"][5]
    assert "missed" in _cells([Round(1.0, 1.0, 0.4, 0), Round(1.0, 1.0, 5.1, 0)])["cold"][5]
