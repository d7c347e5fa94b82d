from __future__ import annotations

import itertools
import random

import pytest

from agent.disk.blocks import BLOCK_BYTES
from agent.structs.pieces import (
    MAX_PIECES,
    MIN_PIECE_BYTES,
    WINDOW_PIECES,
    all_pieces,
    choose,
    first_of,
    owned,
    piece_bytes,
    piece_count,
    pieces_in,
    span,
    window,
)

DIGEST = "ab" * 32
SEEDS = [f"node-{number}" for number in range(16)]
GB = 10**9
SIZES = [1, MIN_PIECE_BYTES, MIN_PIECE_BYTES + 1, MIN_PIECE_BYTES * MAX_PIECES, 5 * GB, 140 * GB]


def test_pieces_are_4_mib_until_there_would_be_too_many() -> None:
    largest = MIN_PIECE_BYTES * MAX_PIECES
    assert piece_bytes(0) == piece_bytes(1) == piece_bytes(largest) == MIN_PIECE_BYTES
    assert piece_bytes(largest + 1) == 2 * MIN_PIECE_BYTES
    assert (piece_bytes(140 * GB), piece_count(140 * GB)) == (64 << 20, 2087)
    assert MIN_PIECE_BYTES % BLOCK_BYTES == 0


@pytest.mark.parametrize("size", SIZES)
def test_pieces_cover_a_file_without_overlap(size: int) -> None:
    spans = [span(piece, size) for piece in range(piece_count(size))]
    assert spans[0][0] == 0
    assert spans[-1][1] == size
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all(start < end for start, end in spans)
    assert len(spans) <= MAX_PIECES
    assert list(pieces_in(all_pieces(size))) == list(range(len(spans)))


def test_an_empty_file_has_no_pieces() -> None:
    assert piece_count(0) == all_pieces(0) == window(0) == 0
    assert owned(DIGEST, 0, "node-1", SEEDS) == 0


def test_pieces_of_a_set_come_in_order() -> None:
    assert list(pieces_in(0b10110)) == [1, 2, 4]
    assert list(pieces_in(0)) == []
    assert first_of(0b10100) == 2


def test_the_window_begins_at_the_first_missing_piece() -> None:
    missing = all_pieces(140 * GB) & ~((1 << 1000) - 1) & ~(1 << 1001)
    found = list(pieces_in(window(missing)))
    assert found[:2] == [1000, 1002]
    # The window is a span of the file: pieces that are there already do not lengthen it.
    assert found[-1] == 1000 + WINDOW_PIECES - 1
    assert window(0b101) == 0b101


def test_rare_pieces_are_chosen_first() -> None:
    candidates = 0b11110
    assert choose(candidates, 0, 0) == 1
    assert choose(candidates, 0b01100, 0) == 2
    assert choose(candidates, 0b01101, 3) == 3
    # None of the rare ones is a candidate.
    assert choose(candidates, 0b1, 3) == 3


def test_the_choice_goes_round_at_the_end() -> None:
    assert choose(0b00110, 0, 4) == 1
    assert choose(0b00110, 0, 2) == 2
    assert choose(0b10110, 0b00100, 4) == 2


def test_every_candidate_can_be_chosen() -> None:
    candidates = 0b1011
    assert {choose(candidates, 0, start) for start in range(5)} == {0, 1, 3}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("owners", [SEEDS[:1], SEEDS[:2], SEEDS])
def test_each_piece_has_one_owner(size: int, owners: list[str]) -> None:
    shares = [owned(DIGEST, size, one, owners) for one in owners]
    together = 0
    for share in shares:
        assert not together & share
        together |= share
    assert together == all_pieces(size)


def test_a_stranger_owns_nothing() -> None:
    assert owned(DIGEST, 5 * GB, "stranger", SEEDS) == 0
    assert owned(DIGEST, 5 * GB, "node-1", []) == 0


def test_only_the_pieces_of_an_owner_that_left_change_hands() -> None:
    left, *others = SEEDS
    lost = owned(DIGEST, 5 * GB, left, SEEDS)
    assert lost
    for one in others:
        before, after = owned(DIGEST, 5 * GB, one, SEEDS), owned(DIGEST, 5 * GB, one, others)
        assert before & after == before
        assert (after & ~before) & lost == after & ~before


def test_the_order_of_the_owners_does_not_matter() -> None:
    shuffled = random.Random(1).sample(SEEDS, len(SEEDS))
    for one in SEEDS:
        assert owned(DIGEST, 5 * GB, one, shuffled) == owned(DIGEST, 5 * GB, one, SEEDS)


def test_files_of_one_size_have_different_owners() -> None:
    other = "cd" * 32
    assert owned(DIGEST, 5 * GB, "node-1", SEEDS) != owned(other, 5 * GB, "node-1", SEEDS)


def test_shares_of_owners_are_alike() -> None:
    """None waits for long for the one with the largest share, and none has nothing to do."""
    mean = piece_count(140 * GB) / len(SEEDS)
    for one in SEEDS:
        share = owned(DIGEST, 140 * GB, one, SEEDS).bit_count()
        assert mean / 2 < share < mean * 2


def test_neighbouring_pieces_have_one_owner_only_in_large_files() -> None:
    def borders(size: int) -> int:
        """How often the owner changes within the file."""
        shares = [owned(DIGEST, size, one, SEEDS) for one in SEEDS]
        of = [
            next(i for i, share in enumerate(shares) if share >> piece & 1)
            for piece in range(piece_count(size))
        ]
        return sum(a != b for a, b in itertools.pairwise(of))

    # 64 pieces: nearly each has another owner than the one before it.
    assert borders(64 * MIN_PIECE_BYTES) > 50
    # 1024 pieces in runs of four: there are 255 borders between runs.
    assert 200 < borders(1024 * MIN_PIECE_BYTES) <= 255
