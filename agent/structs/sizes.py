"""Sizes on the disk, in bytes, and why a copy was evicted. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EvictionReason(StrEnum):
    """Why a model was evicted; the value is the reason in LocalModelNode.status."""

    LIMIT_EXCEEDED = "LimitExceeded"
    DISK_PRESSURE = "DiskPressure"
    MADE_ROOM = "MadeRoom"


@dataclass(frozen=True)
class Space:
    """The disk: its size, what can be taken of it at all, and what others than models take."""

    capacity: int
    writable: int
    others: int


_BLOCK_BYTES = 4096


def in_blocks(size: int) -> int:
    """What a file takes of the disk, in the blocks of usual file systems."""
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
