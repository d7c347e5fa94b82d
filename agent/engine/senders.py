"""Who sent which bytes of a file that agents exchange, and whom to ask again if they are wrong.

Changed only with the schedule's lock held.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from agent.structs.pieces import piece_bytes, pieces_in, span

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agent.disk.blocks import Gap
    from agent.structs.exchange import Lane


class Senders:
    """The senders of one file of `size` bytes.

    `has_unknown` is whether an earlier attempt left bytes of unknown senders. `is_suspect` is
    whether the pieces of peers are fetched again from the origin, and compared. `excluded` are the
    peers that the file is not fetched from any more.
    """

    def __init__(self, size: int, *, has_unknown: bool) -> None:
        self._size = size
        # By piece, who was asked from which byte on, None for the origin.
        self._asked: dict[int, list[tuple[int, Lane | None]]] = {}
        # The same of the pieces that are compared.
        self._compared: dict[int, list[tuple[int, Lane | None]]] = {}
        # Whether the pieces of peers come from one peer, as long as that goes on: otherwise nobody
        # knows who was wrong.
        self._is_alone = False
        self.has_unknown = has_unknown
        self.is_suspect = False
        self.excluded: set[Lane] = set()

    @property
    def includes_peers(self) -> bool:
        """Whether bytes on the disk may be those of a peer."""
        return bool(self._asked) or self.has_unknown

    def ask(self, lane: Lane, piece: int, start: int) -> None:
        """Note that a peer is asked for a piece from this byte on."""
        self._asked.setdefault(piece, []).append((start, lane))

    def ask_origin(self, gap: Gap) -> None:
        """Note that the origin is asked for these bytes."""
        if not self._asked:
            return
        step = piece_bytes(self._size)
        for piece in range(gap.start // step, (gap.end - 1) // step + 1):
            start, end = span(piece, self._size)
            if gap.start <= start and gap.end >= end:
                self._asked.pop(piece, None)
            elif piece in self._asked:
                self._asked[piece].append((max(start, gap.start), None))

    def without_peers(self, pieces: int) -> int:
        """Those of these pieces that came from the origin alone."""
        for piece in pieces_in(pieces):
            if piece in self._asked:
                pieces &= ~(1 << piece)
        return pieces

    def compared_at(self, position: int) -> Lane | None:
        """The peer whose byte at this position is compared with the origin's; None: no peer's."""
        if not self._compared:
            return None
        asked = self._compared.get(position // piece_bytes(self._size), [])
        return next((lane for start, lane in reversed(asked) if start <= position), None)

    @property
    def samples(self) -> Mapping[Lane, int]:
        """A piece of each peer that sent whole ones."""
        return {
            asked[0][1]: piece
            for piece, asked in self._asked.items()
            if len(asked) == 1 and asked[0][1] is not None
        }

    def may_send(self, lane: Lane, live: Collection[Lane]) -> bool:
        """Whether a peer may be asked for a piece. `live` are the peers that answer."""
        others = self._lanes.intersection(live) - {lane} if self._is_alone else ()
        return lane not in self.excluded and not others

    def distrust(self, liars: frozenset[Lane]) -> int:
        """The pieces to fetch again, since the file is wrong; 0: all.

        They are those of these peers, or of all peers if it is not known who sent wrong ones: then
        they come from the origin, and are compared.
        """
        if liars and not self.has_unknown:
            theirs = [
                piece
                for piece, asked in self._asked.items()
                if any(lane in liars for _, lane in asked)
            ]
            for piece in theirs:
                del self._asked[piece]
            self.excluded |= liars
            return sum(1 << piece for piece in theirs)
        self._is_alone = not self.has_unknown and len(self._lanes) == 1
        pieces = 0 if self.has_unknown else sum(1 << piece for piece in self._asked)
        self._compared, self._asked = self._asked, {}
        self.is_suspect, self.has_unknown = True, False
        return pieces

    def start_over(self) -> Lane | None:
        """Ask one peer for all pieces from now on: the origin cannot be asked who was wrong.

        Returns the peer that was wrong, if all pieces of peers were its own.
        """
        lanes = self._lanes
        liar = lanes.pop() if self._is_alone and len(lanes) == 1 else None
        if liar is not None:
            self.excluded.add(liar)
        self.forget()
        self._is_alone = True
        return liar

    def forget(self) -> None:
        """Note that no byte of the file is on the disk any more."""
        self._asked, self._compared = {}, {}
        self.is_suspect = self.has_unknown = False

    @property
    def _lanes(self) -> set[Lane]:
        """The peers that were asked for pieces that are here, or come."""
        asked = chain.from_iterable([*self._compared.values(), *self._asked.values()])
        return {lane for _, lane in asked if lane is not None}
