from __future__ import annotations

from agent.disk.blocks import Gap
from agent.engine.piece_gaps import PieceGaps
from agent.structs.pieces import MIN_PIECE_BYTES as PIECE

SIZE = 4 * PIECE + 1000


def bounds(gap: Gap | None) -> tuple[int, int] | None:
    return None if gap is None else (gap.start, gap.end)


def test_pieces_are_taken_whole_and_once() -> None:
    gaps = PieceGaps(SIZE, [Gap(0, SIZE)])
    assert gaps.missing == 0b11111
    assert bounds(gaps.take(2)) == (2 * PIECE, 3 * PIECE)
    assert bounds(gaps.take(4)) == (4 * PIECE, SIZE)
    assert gaps.missing == 0b01011
    for piece in (0, 1, 3):
        gaps.take(piece)
    assert not gaps


def test_piece_of_which_a_part_is_here_has_several_gaps() -> None:
    gaps = PieceGaps(SIZE, [Gap(100, 200), Gap(300, PIECE + 50)])
    assert gaps.missing == 0b11
    assert bounds(gaps.take(0)) == (100, 200)
    assert gaps.missing == 0b11
    assert bounds(gaps.take(0)) == (300, PIECE)
    assert gaps.missing == 0b10
    assert bounds(gaps.take(1)) == (PIECE, PIECE + 50)


def test_run_has_neighbours_that_are_allowed_and_missing() -> None:
    gaps = PieceGaps(SIZE, [Gap(0, SIZE)])
    gaps.take(3)
    assert bounds(gaps.take_run(0b11110, 9 * PIECE, 0.0)) == (PIECE, 3 * PIECE)
    assert gaps.missing == 0b10001
    assert gaps.take_run(0b01110, 9 * PIECE, 0.0) is None


def test_run_is_at_least_one_piece_and_at_most_so_large() -> None:
    gaps = PieceGaps(SIZE, [Gap(0, SIZE)])
    assert bounds(gaps.take_run(-1, 1, 0.0)) == (0, PIECE)
    assert bounds(gaps.take_run(-1, 2 * PIECE, 0.0)) == (PIECE, 3 * PIECE)
    assert bounds(gaps.take_run(-1, 9 * PIECE, 0.0)) == (3 * PIECE, SIZE)


def test_failed_gap_waits_for_its_time_at_the_origin_and_not_for_peers() -> None:
    gaps = PieceGaps(SIZE, [Gap(0, PIECE)])
    gap = gaps.take(0)
    gaps.put(Gap(gap.start, gap.end, 2, 10.0))
    assert gaps.take_run(-1, PIECE, 9.0) is None
    found = gaps.take_run(-1, PIECE, 10.0)
    assert found is not None
    assert (found.attempts, bounds(found)) == (2, (0, PIECE))
    gaps.put(Gap(gap.start, gap.end, 3, 99.0))
    assert bounds(gaps.take(0)) == (0, PIECE)


def test_run_ends_before_a_piece_that_has_failed() -> None:
    gaps = PieceGaps(SIZE, [Gap(0, SIZE)])
    gaps.take(1)
    gaps.put(Gap(PIECE, 2 * PIECE, 1, 0.0))
    assert bounds(gaps.take_run(-1, 9 * PIECE, 5.0)) == (0, PIECE)
    assert bounds(gaps.take_run(-1, 9 * PIECE, 5.0)) == (PIECE, SIZE)
