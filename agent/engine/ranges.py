"""Which bytes of a file are here, which are asked for, and what to ask for next. Pure.

What is here is kept in blocks of BLOCK_BYTES, each done or not: that is what survives a restart.
What is asked for is kept in gaps, whose ends are ends of blocks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# As little as a kill may cost for each connection; a byte of progress is kept for each.
BLOCK_BYTES = 64 << 10
MIN_RANGE_BYTES = 4 << 20
# Of one file at a time, ranges are smaller: what is digested is what is here without a gap.
MAX_RANGE_BYTES = 16 << 20
MAX_LONE_RANGE_BYTES = 64 << 20

MISSING, WRITTEN, DURABLE = 0, 1, 2

_MISSING, _WRITTEN = bytes([MISSING]), bytes([WRITTEN])
_MISSING_RUN = re.compile(rb"\0+")


def block_count(size: int) -> int:
    """How many blocks a file of this size has."""
    return -(-size // BLOCK_BYTES)


def range_bytes(left: int, connections: int, *, alone: bool) -> int:
    """How much the next request asks for, when so many bytes are left for so many connections.

    Much at first, since each request costs a round trip, and less towards the end, so that all
    connections end together. `alone` is whether the file has no other request at this time.
    """
    wanted = left // (2 * max(connections, 1))
    most = MAX_LONE_RANGE_BYTES if alone else MAX_RANGE_BYTES
    clamped = min(max(wanted, MIN_RANGE_BYTES), most)
    return clamped // BLOCK_BYTES * BLOCK_BYTES


@dataclass
class Gap:
    """Bytes that nobody has asked for, from `start` up to and without `end`.

    `attempts` counts the requests for its first byte that failed, and `not_before` is the monotonic
    time before which there is no next one.
    """

    start: int
    end: int
    attempts: int = 0
    not_before: float = 0.0


class Blocks:
    """The blocks of one file. `marks` has a byte for each: MISSING, WRITTEN or DURABLE."""

    def __init__(self, size: int, marks: bytes | bytearray | None = None) -> None:
        self.size = size
        self.marks = bytearray(marks if marks is not None else block_count(size))
        self.done = self._bytes(0, len(self.marks)) - self._missing(0, len(self.marks))
        self._frontier = 0
        self._advance()

    @property
    def complete(self) -> bool:
        """Whether all bytes are here."""
        return self.done == self.size

    @property
    def frontier(self) -> int:
        """All bytes before this one are here."""
        return min(self._frontier * BLOCK_BYTES, self.size)

    def mark(self, start: int, end: int) -> tuple[int, int] | None:
        """Note the bytes from `start` to `end`, which continue what is here or begin a block.

        Returns the blocks that became complete by it, as first and last + 1, or None.
        """
        first = start // BLOCK_BYTES
        last = block_count(self.size) if end == self.size else end // BLOCK_BYTES
        if last <= first:
            return None
        self.done += self._missing(first, last)
        self.marks[first:last] = self.marks[first:last].replace(_MISSING, _WRITTEN)
        self._advance()
        return first, last

    def gaps(self) -> list[Gap]:
        """What is missing, in order."""
        return [
            Gap(found.start() * BLOCK_BYTES, min(found.end() * BLOCK_BYTES, self.size))
            for found in _MISSING_RUN.finditer(self.marks)
        ]

    def _bytes(self, first: int, last: int) -> int:
        """Bytes of so many blocks; the last of all may be shorter."""
        return min(last * BLOCK_BYTES, self.size) - min(first * BLOCK_BYTES, self.size)

    def _missing(self, first: int, last: int) -> int:
        """Bytes of the missing ones among these blocks."""
        missing = self.marks.count(MISSING, first, last) * BLOCK_BYTES
        if first < last == len(self.marks) and not self.marks[-1]:
            missing -= last * BLOCK_BYTES - self.size
        return missing

    def _advance(self) -> None:
        found = self.marks.find(MISSING, self._frontier)
        self._frontier = len(self.marks) if found < 0 else found


def carve(gap: Gap, size: int) -> tuple[Gap, Gap | None]:
    """The first `size` bytes of a gap, up to the end of a block, and what is left of it."""
    end = -(-(gap.start + size) // BLOCK_BYTES) * BLOCK_BYTES
    if end >= gap.end:
        return gap, None
    return Gap(gap.start, end, gap.attempts, gap.not_before), Gap(end, gap.end)
