"""Pieces of files that agents exchange, and who fetches which piece from the origin. Pure.

A set of pieces is an int: bit `i` is piece `i`. Python's integers make the choice among thousands
of pieces a few machine instructions for each word.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# A multiple of the blocks on the disk: see agent.disk.blocks.
MIN_PIECE_BYTES = 4 << 20
# A set of pieces of the largest file takes 512 bytes, as hexadecimal digits 1 KiB.
MAX_PIECES = 4096
# Pieces are fetched at most so far ahead of the first missing one, since the digest of a file is
# computed in the order of its bytes.
WINDOW_PIECES = 256
# Neighbouring pieces have the same owner, up to so many: larger requests at the origin.
MAX_RUN_PIECES = 4
_RUNS = 64

_MASK = (1 << 64) - 1


def piece_bytes(size: int) -> int:
    """Bytes of each piece of a file of this size; the last one may be shorter."""
    piece = MIN_PIECE_BYTES
    while piece * MAX_PIECES < size:
        piece *= 2
    return piece


def piece_count(size: int) -> int:
    """How many pieces a file of this size has; none if it is empty."""
    return -(-size // piece_bytes(size))


def all_pieces(size: int) -> int:
    """The set of all pieces of a file of this size."""
    return (1 << piece_count(size)) - 1


def span(piece: int, size: int) -> tuple[int, int]:
    """The first byte of a piece of a file of this size, and the first byte after it."""
    step = piece_bytes(size)
    return piece * step, min((piece + 1) * step, size)


def pieces_in(pieces: int) -> Iterator[int]:
    """The pieces of a set, in order."""
    while pieces:
        lowest = pieces & -pieces
        yield lowest.bit_length() - 1
        pieces ^= lowest


def first_of(pieces: int) -> int:
    """The first piece of a set that is not empty."""
    return (pieces & -pieces).bit_length() - 1


def window(wanted: int) -> int:
    """The part of these missing pieces that may be fetched now."""
    if not wanted:
        return 0
    return wanted & (((1 << WINDOW_PIECES) - 1) << first_of(wanted))


def choose(candidates: int, rare: int, start: int) -> int:
    """The piece to fetch of a set that is not empty.

    Pieces of `rare` come first; among them the first one at or after `start`, a random number of
    the caller, so that nodes fetch different pieces.
    """
    among = candidates & rare or candidates
    return first_of(among >> start << start or among)


def owned(digest: str, size: int, me: str, owners: Collection[str]) -> int:
    """The pieces of a file that the node `me` fetches from the origin, of all these owners.

    Each piece has one owner, by rendezvous hashing: when an owner leaves, only its pieces get
    others. `digest` names the file.
    """
    if me not in owners:
        return 0
    count = piece_count(size)
    run = min(MAX_RUN_PIECES, max(1, count // _RUNS))
    mine, others = _salt(digest, me), [_salt(digest, one) for one in owners if one != me]
    found = 0
    for number in range(-(-count // run)):
        weight = _mix(mine ^ number)
        if all(_mix(salt ^ number) < weight for salt in others):
            found |= ((1 << run) - 1) << number * run
    return found & ((1 << count) - 1)


def _salt(digest: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{digest} {name}".encode()).digest()[:8])


def _mix(value: int) -> int:
    """The finalizer of SplitMix64: spreads 64 bits evenly."""
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31
