"""How many bytes the next request asks for. Pure."""

from __future__ import annotations

from agent.disk.blocks import BLOCK_BYTES

MIN_RANGE_BYTES = 4 << 20
# Several requests of one file at a time ask for smaller ranges: digests need its bytes in order.
MAX_RANGE_BYTES = 16 << 20
MAX_LONE_RANGE_BYTES = 64 << 20


def range_bytes(left: int, connections: int, *, alone: bool) -> int:
    """The bytes of the next range, with `left` bytes to request over so many connections.

    Ranges are large at first, since each request costs a round trip, and smaller towards the end,
    so that all connections finish together. `alone`: the file has no other request now.
    """
    wanted = left // (2 * max(connections, 1))
    most = MAX_LONE_RANGE_BYTES if alone else MAX_RANGE_BYTES
    clamped = min(max(wanted, MIN_RANGE_BYTES), most)
    return clamped // BLOCK_BYTES * BLOCK_BYTES
