"""The missing bytes of a file that agents exchange, by piece. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent.disk.blocks import Gap
from agent.structs.pieces import first_of, piece_bytes, pieces_in, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class PieceGaps:
    """The missing bytes that no running request asks for. False if there are none.

    `missing` is the set of their pieces, see agent.structs.pieces.
    """

    def __init__(self, size: int, gaps: Iterable[Gap]) -> None:
        self._size = size
        self._step = piece_bytes(size)
        self.missing = 0
        # The gaps of pieces of which a part is on the disk, or a request has failed.
        self._rests: dict[int, list[Gap]] = {}
        for gap in gaps:
            self.put(gap)

    def __bool__(self) -> bool:
        return self.missing != 0

    def __iter__(self) -> Iterator[Gap]:
        for piece in pieces_in(self.missing):
            yield from self._rests.get(piece) or [Gap(*span(piece, self._size))]

    def put(self, gap: Gap) -> None:
        """Put back missing bytes; the next request for them is the gap's next attempt."""
        first, last = gap.start // self._step, (gap.end - 1) // self._step
        for piece in range(first, last + 1):
            start, end = span(piece, self._size)
            rest = replace(gap, start=max(start, gap.start), end=min(end, gap.end))
            if (rest.start, rest.end) != (start, end) or rest.attempts or rest.not_before:
                self._rests.setdefault(piece, []).append(rest)
            self.missing |= 1 << piece

    def take(self, piece: int) -> Gap:
        """Take the first gap of a missing piece: all of it, unless a part is on the disk."""
        rests = self._rests.get(piece)
        if rests is None:
            self.missing &= ~(1 << piece)
            return Gap(*span(piece, self._size))
        gap = rests.pop(0)
        if not rests:
            del self._rests[piece]
            self.missing &= ~(1 << piece)
        return gap

    def take_run(self, allowed: int, most: int, now: float) -> Gap | None:
        """Take the first gap of these pieces whose time has come, with those that follow it.

        The run has at most `most` bytes, but at least one gap.
        """
        ready = self.missing & allowed
        for piece, rests in self._rests.items():
            if rests[0].not_before > now:
                ready &= ~(1 << piece)
        if not ready:
            return None
        piece = first_of(ready)
        gap = self.take(piece)
        while gap.end == span(piece, self._size)[1] and gap.end - gap.start + self._step <= most:
            piece += 1
            if not ready >> piece & 1 or piece in self._rests:
                break
            gap.end = self.take(piece).end
        return gap
