"""The rows of the comparison of downloads."""

from __future__ import annotations

import pytest

from tests.bench.rows import DISK, FLOOR, OURS, ROWS, STEPS, Entry, chosen
from tests.bench.table import Line


def test_rows_have_a_reference_and_lines_of_their_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        names = [line.name for line in row.lines]
        assert row.reference in names
        assert len(names) == len(set(names))
        assert row.probed or FLOOR in names


def test_rows_and_peers_can_be_chosen() -> None:
    (row,) = chosen("small", "kserve-storage")
    assert {entry.tool for entry in row.entries} == {"s5cmd", "kserve-storage", OURS, DISK}
    assert chosen("", "") == ROWS
    with pytest.raises(ValueError, match="nothing"):
        chosen("nothing", "")
    with pytest.raises(ValueError, match="wget"):
        chosen("", "wget")


def test_lines_say_what_the_steps_after_a_download_add() -> None:
    assert Entry(Line("curl"), "curl", then=tuple(STEPS)).lines == (
        Line("curl"),
        Line("curl, then fsync", durable=True),
        Line("curl, then sha256", "sha256"),
        Line("curl, then sha256 and fsync", "sha256", durable=True),
    )


def test_a_busy_row_has_only_whole_downloads_of_the_quiet_one() -> None:
    rows = {row.name: row for row in ROWS}
    quiet, busy = rows["one-s3"], rows["one-s3-busy"]
    assert busy.busy
    assert not quiet.busy
    assert (busy.tree, busy.reference, busy.title) == (
        quiet.tree,
        quiet.reference,
        f"{quiet.title}, on a busy node",
    )
    assert set(busy.entries) < set(quiet.entries)
    assert not any(entry.without for entry in busy.entries)
