"""Which bytes of a file are on the disk, in blocks of BLOCK_BYTES. Pure.

The marks of blocks are written to the disk, and survive a restart. Gaps are missing bytes that are
to be requested; they end at block boundaries.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# A kill of the agent loses less than one block for each connection. Each block costs one byte of
# the progress file.
BLOCK_BYTES = 64 << 10

MISSING, WRITTEN, DURABLE = 0, 1, 2

_MISSING, _WRITTEN, _DURABLE = bytes([MISSING]), bytes([WRITTEN]), bytes([DURABLE])
_MISSING_RUN, _WRITTEN_RUN = re.compile(_MISSING + b"+"), re.compile(_WRITTEN + b"+")


def block_count(size: int) -> int:
    """How many blocks a file of this size has."""
    return -(-size // BLOCK_BYTES)


def done_bytes(size: int, marks: bytes | bytearray) -> int:
    """Bytes of a file of this size that are on the disk, by the marks of its blocks."""
    return size - _missing_bytes(size, marks, 0, len(marks))


def _missing_bytes(size: int, marks: bytes | bytearray, first: int, last: int) -> int:
    """Bytes of the missing ones among these blocks; the last of all may be shorter."""
    missing = marks.count(MISSING, first, last) * BLOCK_BYTES
    if first < last == len(marks) and not marks[-1]:
        missing -= last * BLOCK_BYTES - size
    return missing


@dataclass
class Gap:
    """Missing bytes that no running request asks for, from `start` up to but excluding `end`.

    `attempts` counts the failed requests for its first byte; `not_before` is the monotonic time of
    the next request at the earliest. `received` are the bytes that had come of the model from its
    origin when the last request for it ended.
    """

    start: int
    end: int
    attempts: int = 0
    not_before: float = 0.0
    received: int = 0


class Blocks:
    """The blocks of one file. `marks` has a byte for each: MISSING, WRITTEN or DURABLE."""

    def __init__(self, size: int, marks: bytes | bytearray | None = None) -> None:
        self.size = size
        self.marks = bytearray(marks if marks is not None else block_count(size))
        self.done = done_bytes(size, self.marks)
        self._frontier = 0
        self._advance()

    @property
    def complete(self) -> bool:
        """Whether all bytes are on the disk."""
        return self.done == self.size

    @property
    def frontier(self) -> int:
        """The first missing byte, in whole blocks: all bytes before it are on the disk."""
        return min(self._frontier * BLOCK_BYTES, self.size)

    def mark(self, start: int, end: int) -> tuple[int, int] | None:
        """Note the bytes from `start` to `end`, which continue what is here or begin a block.

        Returns the blocks that became complete by it, as first and last + 1, or None.
        """
        first = start // BLOCK_BYTES
        last = block_count(self.size) if end == self.size else end // BLOCK_BYTES
        if last <= first:
            return None
        self.done += _missing_bytes(self.size, self.marks, first, last)
        self.marks[first:last] = self.marks[first:last].replace(_MISSING, _WRITTEN)
        self._advance()
        return first, last

    def has(self, start: int, end: int) -> bool:
        """Whether these bytes are on the disk; `start` is the start of a block."""
        last = block_count(self.size) if end == self.size else end // BLOCK_BYTES
        return self.marks.find(MISSING, start // BLOCK_BYTES, last) < 0

    def gaps(self, start: int = 0, end: int | None = None) -> list[Gap]:
        """The missing bytes from `start` to `end`: the end of a block, or of the file (None)."""
        last = self.size if end is None else end
        return [
            Gap(max(found.start() * BLOCK_BYTES, start), min(found.end() * BLOCK_BYTES, last))
            for found in _MISSING_RUN.finditer(self.marks, start // BLOCK_BYTES, block_count(last))
        ]

    def written(self) -> list[tuple[int, int]]:
        """The blocks that are WRITTEN and not DURABLE, as first and last + 1 of each run."""
        return [found.span() for found in _WRITTEN_RUN.finditer(self.marks)]

    def settle(self, runs: Sequence[tuple[int, int]]) -> None:
        """Mark these runs of blocks as DURABLE."""
        for first, last in runs:
            self.marks[first:last] = _DURABLE * (last - first)

    def _advance(self) -> None:
        found = self.marks.find(MISSING, self._frontier)
        self._frontier = len(self.marks) if found < 0 else found


def without_written(marks: bytes | bytearray) -> bytes:
    """The marks with all WRITTEN blocks as MISSING: what a loss of power would leave of them."""
    return bytes(marks).replace(_WRITTEN, _MISSING)


def carve(gap: Gap, size: int) -> tuple[Gap, Gap | None]:
    """The first `size` bytes of a gap, up to the end of a block, and what is left of it."""
    end = -(-(gap.start + size) // BLOCK_BYTES) * BLOCK_BYTES
    if end >= gap.end:
        return gap, None
    return replace(gap, end=end), Gap(end, gap.end)
