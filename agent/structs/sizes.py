"""Sizes on the disk, in bytes, and reasons of evictions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class EvictionReason(StrEnum):
    """Why a copy was evicted. The value is the reason in LocalModelNode.status."""

    LIMIT_EXCEEDED = "LimitExceeded"
    DISK_PRESSURE = "DiskPressure"
    MADE_ROOM = "MadeRoom"


@dataclass(frozen=True)
class Space:
    """The disk: its size, the bytes that can be used at all, and those that are not models'."""

    capacity: int
    writable: int
    others: int


_BLOCK_BYTES = 4096


def in_blocks(size: int) -> int:
    """The disk space of a file, rounded up to 4 KiB blocks."""
    return -(-size // _BLOCK_BYTES) * _BLOCK_BYTES
