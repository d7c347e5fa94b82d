"""The limits of downloads that an administrator sets. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from agent.structs.options import MAX_CONNECTIONS


@dataclass(frozen=True)
class Limits:
    """The limits that an administrator sets. `bytes_per_second` None: no limit."""

    connections_per_origin: int = MAX_CONNECTIONS
    bytes_per_second: int | None = None
