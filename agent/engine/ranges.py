"""How many bytes the next request asks for. Pure."""

from __future__ import annotations

from localmodel.agent.disk.blocks import BLOCK_BYTES

MIN_RANGE_BYTES = 4 << 20
# Of one file at a time, ranges are smaller: what is digested is what is here without a gap.
MAX_RANGE_BYTES = 16 << 20
MAX_LONE_RANGE_BYTES = 64 << 20


def range_bytes(left: int, connections: int, *, alone: bool) -> int:
    """How much the next request asks for, when so many bytes are left for so many connections.

    Much at first, since each request costs a round trip, and less towards the end, so that all
    connections end together. `alone` is whether the file has no other request at this time.
    """
    wanted = left // (2 * max(connections, 1))
    most = MAX_LONE_RANGE_BYTES if alone else MAX_RANGE_BYTES
    clamped = min(max(wanted, MIN_RANGE_BYTES), most)
    return clamped // BLOCK_BYTES * BLOCK_BYTES
