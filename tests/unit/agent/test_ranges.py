from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.disk.blocks import BLOCK_BYTES, DURABLE, Blocks, Gap, block_count, carve
from agent.engine.ranges import (
    MAX_LONE_RANGE_BYTES,
    MAX_RANGE_BYTES,
    MIN_RANGE_BYTES,
    range_bytes,
)

SIZES = st.integers(0, 12 * BLOCK_BYTES)


def test_a_range_is_large_at_first_and_small_at_the_end() -> None:
    assert range_bytes(100 << 30, 16, alone=False) == MAX_RANGE_BYTES
    assert range_bytes(100 << 30, 16, alone=True) == MAX_LONE_RANGE_BYTES
    assert range_bytes(1 << 30, 16, alone=True) == 32 << 20
    assert range_bytes(1, 16, alone=True) == MIN_RANGE_BYTES
    assert range_bytes(177_777_777, 7, alone=False) % BLOCK_BYTES == 0


@settings(deadline=None)
@given(SIZES, st.data())
def test_what_is_here_and_what_is_missing_are_the_whole_file(
    size: int, data: st.DataObject
) -> None:
    marks = bytes(
        data.draw(
            st.lists(
                st.sampled_from([0, 1, 2]), min_size=block_count(size), max_size=block_count(size)
            )
        )
    )
    blocks = Blocks(size, marks)
    gaps = blocks.gaps()
    assert blocks.done + sum(gap.end - gap.start for gap in gaps) == size
    assert blocks.complete is (not gaps)
    assert blocks.frontier == (gaps[0].start if gaps else size)
    assert all(a.end < b.start for a, b in itertools.pairwise(gaps))


@settings(deadline=None)
@given(SIZES.filter(bool), st.lists(st.integers(2000, 3 * BLOCK_BYTES), min_size=1))
def test_bytes_that_come_in_pieces_complete_the_file_once(size: int, pieces: list[int]) -> None:
    blocks = Blocks(size)
    position = 0
    marked: list[tuple[int, int] | None] = []
    while position < size:
        end = min(position + pieces[len(marked) % len(pieces)], size)
        marked.append(blocks.mark(position, end))
        # Only whole blocks are believed after a restart.
        assert blocks.done <= end
        assert end - blocks.done < BLOCK_BYTES
        assert blocks.frontier == blocks.done
        position = end
    assert blocks.complete
    assert not blocks.gaps()
    # Each block is told once, in order.
    told = [span for span in marked if span is not None]
    assert [n for first, last in told for n in range(first, last)] == list(range(block_count(size)))


@given(st.integers(0, 5 * BLOCK_BYTES), st.integers(1, 9 * BLOCK_BYTES), st.integers(1, 1 << 22))
def test_a_gap_is_cut_at_the_end_of_a_block(start: int, length: int, size: int) -> None:
    end = start + length
    first, rest = carve(Gap(start, end, attempts=2), size)
    assert first.start == start
    if rest is None:
        assert first.end == end
    else:
        assert first.end % BLOCK_BYTES == 0
        assert first.end - start >= size
        assert (rest.start, rest.end, rest.attempts) == (first.end, end, 0)


def test_a_durable_block_counts_as_here() -> None:
    blocks = Blocks(BLOCK_BYTES + 1, bytes([DURABLE, 0]))
    assert blocks.done == BLOCK_BYTES
    assert blocks.mark(BLOCK_BYTES, BLOCK_BYTES + 1) == (1, 2)
    assert blocks.complete
